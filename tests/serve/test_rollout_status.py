"""The status document: where a rollout stands, both arms, verdicts, what it waits for; from the root."""

from __future__ import annotations

import json
import math
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from registry.errors import NotFound
from registry.records import RolloutEntry
from registry.store import Registry
from serve.rollout.decision.states import EventType
from serve.rollout.display.arms import rate
from serve.rollout.display.status import RolloutFacts, brief, describe, read_status
from serve.rollout.documents import RolloutStatus
from serve.rollout.plan import failures_needed, requests_needed
from serve.rollout.policy import Policy, Promotion
from serve.rollout.presets import load_preset
from serve.rollout.recording.baselines import BaselineDocument
from serve.rollout.recording.evidence import ArmTally, ReplicaEvidence, Segment, ShadowPairs
from serve.rollout.recording.pooling import pool
from serve.rollout.start import RolloutRequest, plan, start
from serve.rollout.statistics.judgement import Certificate, Judgement, MetricCheck, MetricVerdict
from tests.fakes.driving import arm, drive, make_root, seen
from tests.fakes.rollouts import POLICY, ROLLOUT, make_entry
from tests.fakes.store import beat

CALM = MetricCheck("errors", MetricVerdict.PASS, 0.0, 0.02, "no alarm")
BALANCED = MetricCheck("imbalance", MetricVerdict.PASS, 0.0, 0.001, "balanced")
OPEN = Certificate(reached=False, how="", sentence="about 700 more canary units are needed", needed=700)
JUDGEMENT = Judgement((CALM,), BALANCED, OPEN)
NOW = 1_060.0


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return make_root(tmp_path)


def begin(registry: Registry, policy: str = "fast") -> RolloutEntry:
    order = RolloutRequest("support", 2, load_preset(policy), "ana")
    return start(registry, order, time.time).changes[-1][1]


def status(registry: Registry) -> RolloutStatus:
    return read_status(registry, "support", time.time())


def document(replica: str, *segments: Segment, at: float = NOW, seq: int = 2) -> ReplicaEvidence:
    return ReplicaEvidence(
        rollout=ROLLOUT, adapter="support", replica=replica, at=at, seq=seq, segments=list(segments)
    )


def segment(
    weight: int, step: int = 0, seq: int = 2, pairs: ShadowPairs | None = None, **found: ArmTally
) -> Segment:
    return Segment(
        seq=seq, step=step, weight=weight, began=1_000, ended=NOW, arms=found, pairs=pairs or ShadowPairs()
    )


def told(
    entry: RolloutEntry, *documents: ReplicaEvidence, judgement: Judgement = JUDGEMENT, live: bool = True
) -> RolloutStatus:
    replicas = [(beat(one.replica, "support@1", "support@2"), live) for one in documents]
    evidence = pool(documents, step=entry.step)
    return describe(RolloutFacts([entry], documents, evidence, judgement, replicas, NOW))


def test_an_adapter_without_a_rollout_is_not_found(registry: Registry) -> None:
    with pytest.raises(NotFound, match="support: has had no rollout; start one: `wardrobe rollout start"):
        status(registry)


def test_every_state_can_be_told(registry: Registry) -> None:
    begin(registry, "low-traffic")
    found = [status(registry).state]
    for occasion in (
        EventType.LOADED, EventType.SHADOWED, EventType.HOLD, EventType.CLEAR, EventType.PAUSE,
        EventType.RESUME, EventType.PROMOTE, EventType.COOLED,
    ):  # fmt: skip
        drive(registry, occasion)
        one = status(registry)
        found.append(one.state)
        assert json.loads(one.model_dump_json())["state"] == one.state
        assert one.missing or not one.open
    assert found == [
        "preloading", "shadow", "ramping", "hold", "ramping", "paused", "ramping", "promoted", "closed",
    ]  # fmt: skip


def test_an_ended_rollout_keeps_its_last_state_and_evidence(registry: Registry) -> None:
    begin(registry)
    drive(registry, EventType.LOADED)
    seen(registry, stable=arm(270, failed=2), canary=arm(30, failed=9, begin=1000))
    drive(registry, EventType.ROLL_BACK)
    one = status(registry)
    assert (one.state, one.open, one.weight, one.reason) == ("rolled_back", False, 0, "guard")
    assert (one.arms["canary"].errors.count, one.arms["stable"].units) == (9, 270)
    assert (one.missing, one.needed) == ([], 0)
    assert [step.state for step in one.steps] == ["ahead", "ahead"]


def test_the_verdicts_come_from_the_statistics(registry: Registry) -> None:
    begin(registry)
    drive(registry, EventType.LOADED)
    seen(registry, stable=arm(400), canary=arm(40, failed=30, begin=1000))
    checks = {check.metric: check for check in status(registry).checks}
    assert checks["errors"].verdict == "fail"
    assert checks["errors"].progress == 1.0
    assert checks["errors"].log_e > -math.log(checks["errors"].alpha)


def test_the_base_is_the_control_of_an_adapter_without_stable(registry: Registry) -> None:
    start(registry, RolloutRequest("raw", 1, load_preset("fast"), "ana"), time.time)
    one = read_status(registry, "raw", time.time())
    assert (one.stable, one.arms["stable"].version) == ("base", "base")
    assert brief(registry.rollout_log("raw")[-1]).stable == "base"


def test_the_base_is_a_third_arm_where_it_is_observed() -> None:
    entry = make_entry(policy=POLICY.model_copy(update={"observe_base": 500}), base_weight=500)
    one = told(entry, document("r1", segment(1000, stable=arm(90), canary=arm(10), base=arm(5, begin=500))))
    assert {name: found.units for name, found in one.arms.items()} == {"stable": 90, "canary": 10, "base": 5}


def test_replicas_are_united_and_a_unit_counts_once() -> None:
    shared = arm(10, failed=2, begin=1000)
    one = told(
        make_entry(),
        document("r1", segment(1000, stable=arm(100, failed=1), canary=shared)),
        document("r2", segment(1000, stable=arm(80, begin=100), canary=shared)),
    )
    assert (one.arms["stable"].units, one.arms["canary"].units) == (180, 10)
    assert (one.arms["canary"].requests, one.arms["canary"].errors.count) == (20, 2)
    assert one.arms["stable"].outcomes == {"engine_error": 1, "ok": 179}
    assert one.arms["stable"].output_tokens_mean == 10


def test_what_a_brake_or_the_promotion_saw_is_no_comparison() -> None:
    one = told(
        make_entry(),
        document(
            "r1", segment(0, stable=arm(50)), segment(10_000, canary=arm(70)), segment(500, canary=arm(3))
        ),
    )
    assert (one.arms["stable"].units, one.arms["canary"].units) == (0, 3)


def test_times_and_ratings_are_told_per_arm() -> None:
    one = told(
        make_entry(),
        document(
            "r1",
            segment(1000, stable=arm(50, place=40, score=0.8), canary=arm(9, begin=99, place=44, score=0.2)),
        ),
    )
    stable, canary = one.arms["stable"], one.arms["canary"]
    assert stable.first_token_median is not None
    assert canary.first_token_median == pytest.approx(stable.first_token_median * 1.2**4, rel=0.01)
    assert stable.feedback_mean == pytest.approx(0.8)
    assert canary.feedback_mean == pytest.approx(0.2)
    assert (stable.ratings, canary.ratings) == (50, 9)
    nothing = told(make_entry()).arms["canary"]
    assert (nothing.first_token_median, nothing.feedback_mean, nothing.output_tokens_mean) == (None,) * 3


@pytest.mark.parametrize(
    ("count", "of", "low", "high"),
    [
        (0, 0, 0.0, 1.0),
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (3, 300, 0.0034, 0.0290),
        (5, 10, 0.2366, 0.7634),
    ],
)
def test_rates_have_wilson_intervals(count: int, of: int, low: float, high: float) -> None:
    found = rate(count, of)
    assert (round(found.low, 4), round(found.high, 4)) == (low, high)
    assert found.value == (count / of if of else None)


def test_steps_are_done_now_or_ahead() -> None:
    def states(entry: RolloutEntry) -> list[str]:
        return [step.state for step in told(entry).steps]

    assert states(make_entry(state="preloading", step=-1, weight=0)) == ["ahead", "ahead"]
    assert states(make_entry()) == ["now", "ahead"]
    assert states(make_entry(step=1, weight=5000)) == ["done", "now"]
    assert states(make_entry(state="promoted", step=1, weight=10_000)) == ["done", "done"]


def test_a_ramp_tells_units_seconds_and_what_is_odd() -> None:
    odd = Judgement(
        (replace(CALM, verdict=MetricVerdict.SUSPICIOUS, sentence="e-value 12 of 50"),),
        replace(BALANCED, verdict=MetricVerdict.FAIL, sentence="40 units, 400 expected"),
        OPEN,
    )
    entry = make_entry(seq=3, step_since=1_058.0)
    slow = document("r2", at=NOW - 20, seq=3)
    behind = document("r1", segment(1000, canary=arm(12)), seq=2)
    found = told(entry, behind, slow, judgement=odd)
    assert found.missing == [
        "12 of 30 canary units at 10%",
        "2 of 5 s at 10%",
        "suspicious: e-value 12 of 50",
        "imbalance: 40 units, 400 expected",
        "r1 still acts on entry 2 of 3",
        "r2 wrote evidence 20 s ago",
    ]
    assert found.needed == 18


def test_the_last_step_waits_for_the_certificate() -> None:
    entry = make_entry(step=1, weight=5000)
    enough = document("r1", segment(5000, step=1, stable=arm(100), canary=arm(100, begin=500)))
    found = told(entry, enough)
    assert found.missing == [f"the promotion: {OPEN.sentence}"]
    assert found.needed == 700
    reached = Certificate(reached=True, how="bound", sentence="at most 0.9 %", needed=0)
    found = told(entry, enough, judgement=replace(JUDGEMENT, certificate=reached))
    assert (found.missing, found.needed) == ([], 0)


def test_the_promotion_waits_for_metrics_that_cannot_speak_yet_unless_no_harm_is_enough() -> None:
    entry = make_entry(step=1, weight=5000, step_since=1_058.0)
    enough = document("r1", segment(5000, step=1, stable=arm(100), canary=arm(100, begin=500)))
    quiet = replace(CALM, verdict=MetricVerdict.INSUFFICIENT, sentence="too few", needed=9)
    optional = replace(quiet, metric="feedback", required=False)
    reached = Certificate(reached=True, how="bound", sentence="at most 0.9 %", needed=0)
    found = told(entry, enough, judgement=Judgement((quiet, optional), BALANCED, reached))
    assert (found.missing, found.needed) == (["2 of 5 s at 50%", "errors: too few"], 9)
    harmless = replace(reached, how="no_harm")
    policy = POLICY.model_copy(update={"promotion": Promotion(no_harm_units=30, no_harm_seconds=90)})
    entry = make_entry(policy, step=1, weight=5000, step_since=1_050.0)
    found = told(entry, enough, judgement=Judgement((quiet,), BALANCED, harmless))
    assert (found.missing, found.needed) == (["10 of 90 s without harm"], 0)


def test_no_live_server_is_what_is_missing() -> None:
    found = told(make_entry(), document("r1", segment(1000, canary=arm(99))), live=False)
    assert "no server is alive: nothing is counted and no step is taken" in found.missing
    loading = make_entry(state="preloading", weight=0, step=-1)
    assert told(loading).missing[0] == "no server is alive: start one with `wardrobe serve`"


def test_preloading_names_who_lacks_what() -> None:
    entry = make_entry(state="preloading", weight=0, step=-1)
    beats = [(beat("r1", "support@1"), True), (beat("r2", "support@1", "support@2"), True)]
    known = RolloutFacts([entry], [], pool([], step=-1), JUDGEMENT, beats, NOW, proved=False)
    assert describe(known).missing == [
        "r1 has not loaded support@2", "support@2 is not proved yet", "540 s are left for loading",
    ]  # fmt: skip
    assert describe(replace(known, proved=True, replicas=beats[1:])).missing == ["540 s are left for loading"]


def test_other_states_tell_what_they_wait_for() -> None:
    shadowed = make_entry(policy=load_preset("low-traffic"), state="shadow", step=-1, weight=0, shadow=10_000)
    pairs = document("r1", segment(0, step=-1, pairs=ShadowPairs(both_ok=120, canary_failed=2, dropped=9)))
    assert told(shadowed, pairs).missing == ["122 of 500 shadowed pairs"]
    held = make_entry(state="hold", reason="imbalance", sentence="too few units", resumes="ramping")
    assert told(held, document("r1")).missing[0] == "held: too few units"
    assert "the hold ends in 86340 s (rollback on suspected harm)" in told(held, document("r1")).missing
    paused = told(make_entry(state="paused", resumes="ramping"), document("r1")).missing
    assert paused == [
        "a person paused it: `wardrobe rollout resume support` goes on, `abort support` takes it back"
    ]
    cooling = told(make_entry(state="promoted", weight=10_000), document("r1")).missing
    assert cooling == ["3540 s of the cool-down are left; support@1 stays loaded for a way back"]


def test_a_replica_that_brakes_or_is_gone_is_named() -> None:
    braking = document("r1", segment(1000, canary=arm(99))).model_copy(update={"braking": True})
    found = told(make_entry(), braking)
    assert "r1 brakes: it sends the canary's share to stable" in found.missing
    assert found.replicas[0].braking
    assert told(make_entry(), braking, live=False).replicas[0].live is False


def test_evidence_that_cannot_be_read_is_said_and_left_out(registry: Registry) -> None:
    entry = begin(registry)
    drive(registry, EventType.LOADED)
    seen(registry, canary=arm(3))
    registry.put_evidence(entry.rollout, "r9", b"{broken")
    one = status(registry)
    (said,) = (text for text in one.missing if "r9" in text)
    assert said.startswith(f"evidence/{entry.rollout}/r9.json: cannot be read")
    assert "left out of all decisions; delete it" in said
    assert one.arms["canary"].units == 3


def test_an_overwhelming_e_value_stays_a_number() -> None:
    endless = replace(JUDGEMENT, checks=(replace(CALM, log_e=math.inf), replace(CALM, log_e=-math.inf)))
    found = told(make_entry(), judgement=endless)
    assert [check.progress for check in found.checks] == [1.0, 0.0]
    assert RolloutStatus.model_validate_json(found.model_dump_json()) == found


def test_secrets_of_webhooks_are_not_told(registry: Registry) -> None:
    policy = load_preset("fast").model_copy(update={"webhooks": ("https://chat/SECRET",)})
    start(registry, RolloutRequest("support", 2, policy, "ana"), time.time)
    assert "SECRET" not in status(registry).model_dump_json()


def test_the_planning_formula_gives_the_measured_figures() -> None:
    # statistics/derivations.md 9: 3 %, three times as many, weight 10 %: about 46 failures, 127 requests.
    assert failures_needed(0.05, 0.1, 3) == pytest.approx(46, abs=1)
    assert requests_needed(0.05, 0.1, 3, 0.03) == pytest.approx(127, abs=1)
    assert failures_needed(0.05, 0.1, 1) == math.inf
    assert requests_needed(0.01, 0.1, 2, 0.01) > requests_needed(0.05, 0.1, 2, 0.01)


def test_a_plan_uses_stables_own_rate_where_it_is_known(registry: Registry) -> None:
    order = RolloutRequest("support", 2, load_preset("default"), "ana")
    assert plan(registry, order, time.time()).base_rate_from == "assumed: too little is known"
    document = BaselineDocument(at=time.time(), requests=1_000, failures=30)
    registry.put_baseline("support", "r1", document.model_dump_json().encode())
    found = plan(registry, order, time.time())
    assert (found.base_rate, found.base_rate_from) == (0.03, "stable's last 1000 requests")
    begun = start(registry, order, time.time)
    assert begun.changes[-1][1].baseline["requests"] == 1_000
    old = document.model_copy(update={"at": time.time() - 9_999})
    registry.put_baseline("support", "r1", old.model_dump_json().encode())
    assert plan(registry, replace(order, number=3), time.time()).base_rate == 0.01


def test_policies_without_a_metric_plan_without_it(registry: Registry) -> None:
    document = load_preset("fast").model_dump(mode="json") | {
        "metrics": {"errors": None, "format": {"kind": "json"}}
    }
    policy = Policy.model_validate(document)
    found = plan(registry, RolloutRequest("support", 2, policy, "ana"), time.time())
    assert [one.metric for one in found.metrics] == ["latency", "feedback", "format"]
    assert found.steps[0].detects == []
    assert found.promotes.startswith("no harm found after 30 units and 5 s")


def test_starts_at_once_leave_one_rollout_open_and_end_every_other(registry: Registry) -> None:
    registry.publish("support", registry.root.parent / "trained-1", who="t", allow_duplicate=True)
    barrier = threading.Barrier(3)

    def begin_one(number: int) -> None:
        barrier.wait()
        order = RolloutRequest("support", number, load_preset("fast"), f"person-{number}")
        start(Registry.open(registry.root), order, time.time)

    threads = [threading.Thread(target=begin_one, args=(number,)) for number in (2, 3, 4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    log = registry.rollout_log("support")
    assert [entry.event for entry in log] == ["start", "supersede", "start", "supersede", "start"]
    assert len({entry.rollout for entry in log}) == 3
    assert [entry.seq for entry in log] == [1, 2, 3, 4, 5]
