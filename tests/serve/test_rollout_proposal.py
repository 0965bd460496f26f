"""What is due in a rollout: users are protected first, and nothing moves forward on missing evidence."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from registry.records import RolloutEntry
from serve.rollout.decision.health import Health
from serve.rollout.decision.preflight import Preflight
from serve.rollout.decision.proposal import Situation, propose
from serve.rollout.decision.states import Event, EventType
from serve.rollout.policy import Policy, Promotion, Shadow
from serve.rollout.recording.evidence import Baseline, Evidence
from serve.rollout.statistics.judgement import Certificate, Judgement, MetricCheck, MetricVerdict
from tests.fakes.rollouts import POLICY, make_entry

WELL = MetricCheck("errors", MetricVerdict.PASS, 0.0, 0.02, "no harm")
EVEN = MetricCheck("imbalance", MetricVerdict.PASS, 0.0, 0.001, "even")
OPEN = Certificate(reached=False, how="", sentence="", needed=40)
CERTIFIED = Certificate(reached=True, how="certificate", sentence="certified", needed=0)


def judgement(
    *checks: MetricCheck, imbalance: MetricCheck = EVEN, certificate: Certificate = OPEN
) -> Judgement:
    return Judgement(checks or (WELL,), imbalance, certificate)


def situation(**changes: Any) -> Situation:
    return replace(
        Situation(judgement(), Evidence(step_units=30), Preflight(ready=True), Health(measured=True)),
        **changes,
    )


def due(entry: RolloutEntry, at: float = 1_010.0, policy: Policy = POLICY, **changes: Any) -> Event | None:
    return propose(entry, policy, situation(**changes), "replica r1", at)


def told(event: Event | None) -> tuple[str, str]:
    assert event is not None
    return event.occasion.value, event.reason


LAST: dict[str, Any] = {"step": 1, "weight": 5_000, "seq": 3}
FAIL = replace(WELL, verdict=MetricVerdict.FAIL, sentence="9 of 10 failed", log_e=6.0)
ODD = replace(EVEN, verdict=MetricVerdict.FAIL)
WEAK = replace(WELL, verdict=MetricVerdict.SUSPICIOUS)
BOTH = Health(stable_degraded=True, canary_degraded=True, measured=True, sentence="both are slow")


def test_a_step_that_is_complete_advances_with_its_numbers() -> None:
    event = due(make_entry())
    assert told(event) == ("advance", "advance")
    assert event is not None
    assert event.facts["step_units"] == 30
    assert event.facts["errors.verdict"] == "pass"


@pytest.mark.parametrize(
    ("changes", "at"),
    [
        ({"evidence": Evidence(step_units=29)}, 1_010.0),
        ({}, 1_004.0),
        ({"fresh": False}, 1_010.0),
    ],
)
def test_too_few_units_too_short_or_stale_waits(changes: dict[str, Any], at: float) -> None:
    assert due(make_entry(), at, **changes) is None


def test_an_alarm_rolls_back_at_once_also_on_stale_evidence_and_while_paused_or_held() -> None:
    for state in ("ramping", "paused", "hold", "shadow"):
        entry = make_entry(state=state, reason="insufficient")
        assert told(due(entry, 1_000.1, judgement=judgement(FAIL), fresh=False)) == ("guard", "errors")


def test_a_version_that_may_not_be_served_is_taken_back_in_every_state() -> None:
    for state in ("preloading", "shadow", "ramping", "hold", "paused", "promoted"):
        assert told(due(make_entry(state=state), forbidden="quarantined")) == ("guard", "forbidden")


def test_a_suspicious_metric_or_odd_split_holds() -> None:
    assert told(due(make_entry(), judgement=judgement(WEAK))) == ("hold", "suspicious")
    assert told(due(make_entry(), judgement=judgement(imbalance=ODD))) == ("hold", "imbalance")


def test_a_hold_clears_when_its_reason_is_gone() -> None:
    held = make_entry(state="hold", reason="suspicious", resumes="ramping")
    assert told(due(held)) == ("clear", "clear")
    assert due(held, judgement=judgement(WEAK)) is None
    odd = replace(held, reason="imbalance")
    assert told(due(odd)) == ("clear", "clear")
    assert due(odd, judgement=judgement(imbalance=ODD)) is None
    few = replace(held, reason="insufficient")
    assert due(few, evidence=Evidence(step_units=3)) is None
    assert told(due(few)) == ("clear", "clear")


def test_a_step_without_enough_units_in_time_holds_and_says_how_many_are_needed() -> None:
    event = due(make_entry(), 1_000.0 + 86_400, evidence=Evidence(step_units=3))
    assert told(event) == ("hold", "insufficient")
    assert event is not None
    assert "3 of 30" in event.sentence
    assert "about 40 more" in event.sentence


def test_the_last_step_promotes_only_with_a_certificate() -> None:
    assert due(make_entry(**LAST)) is None
    certified = due(make_entry(**LAST), judgement=judgement(certificate=CERTIFIED))
    assert told(certified) == ("promote", "certificate")
    assert told(due(make_entry(), judgement=judgement(certificate=CERTIFIED))) == ("advance", "advance")


def test_a_certificate_waits_for_metrics_that_cannot_speak_yet() -> None:
    silent = replace(WELL, metric="per_token", verdict=MetricVerdict.INSUFFICIENT, needed=9)
    assert due(make_entry(**LAST), judgement=judgement(WELL, silent, certificate=CERTIFIED)) is None
    optional = replace(silent, required=False)
    event = due(make_entry(**LAST), judgement=judgement(WELL, optional, certificate=CERTIFIED))
    assert told(event) == ("promote", "certificate")


def test_no_harm_found_promotes_after_its_seconds_where_the_policy_says_so() -> None:
    promotion = Promotion(no_harm_units=30, no_harm_seconds=60)
    policy = POLICY.model_copy(update={"promotion": promotion})
    calm = judgement(certificate=Certificate(reached=True, how="no_harm", sentence="no harm", needed=0))
    entry = make_entry(policy, **LAST)
    assert due(entry, 1_059.0, policy, judgement=calm) is None
    assert told(due(entry, 1_060.0, policy, judgement=calm)) == ("promote", "no_harm")


def test_preloading_waits_for_the_preflight() -> None:
    entry = make_entry(state="preloading", weight=0, step=-1, baseline={})
    assert due(entry, preflight=Preflight(ready=False, missing="r2")) is None
    assert told(due(entry)) == ("loaded", "loaded")


def test_a_canary_that_cannot_be_loaded_is_rolled_back() -> None:
    entry = make_entry(state="preloading", weight=0, step=-1)
    assert told(due(entry, preflight=Preflight(ready=False, failed="refused"))) == ("guard", "preload")
    late = due(entry, 1_000.0 + 600, preflight=Preflight(ready=False, missing="r2 has not loaded it"))
    assert told(late) == ("timeout", "preload")


def test_shadow_passes_by_pairs_and_holds_without_them() -> None:
    policy = POLICY.model_copy(update={"shadow": Shadow(pairs=50, max_seconds=100)})
    entry = make_entry(policy, state="shadow", weight=0, step=-1)
    assert due(entry, policy=policy, evidence=Evidence(pairs={"both_ok": 49})) is None
    enough = Evidence(pairs={"both_ok": 45, "canary_failed": 5, "dropped": 9})
    assert told(due(entry, policy=policy, evidence=enough)) == ("shadowed", "shadowed")
    late = due(entry, 1_101.0, policy, evidence=Evidence(pairs={"both_ok": 49}))
    assert told(late) == ("hold", "insufficient")


def test_both_arms_degraded_suspends() -> None:
    assert told(due(make_entry(), health=BOTH)) == ("suspect", "suspect")
    assert told(due(make_entry(), health=replace(BOTH, canary_degraded=False))) == ("advance", "advance")


def test_a_suspended_rollout_ends_when_stable_recovers_and_goes_on_when_it_does_not() -> None:
    held = make_entry(state="hold", reason="suspect", weight=0, held_weight=1_000)
    bad = Health(stable_degraded=True, measured=True)
    assert told(due(held, 1_005.0)) == ("guard", "suspect")
    assert due(held, 1_005.0, health=Health(measured=False)) is None
    assert due(held, 1_059.0, health=bad) is None
    assert told(due(held, 1_061.0, health=bad)) == ("clear", "unrelated")
    assert told(due(held, 1_000.0 + 86_400, health=Health(measured=False))) == ("timeout", "suspect")


def test_a_promoted_version_cools_down_and_is_guarded_by_the_absolute_limit() -> None:
    entry = make_entry(state="promoted", weight=10_000, step=1)
    assert due(entry) is None
    assert told(due(entry, 1_000.0 + 3_600)) == ("cooled", "cooled")
    assert told(due(entry, health=Health(canary_degraded=True, sentence="slow"))) == ("guard", "absolute")
    assert due(entry, judgement=judgement(FAIL)) is None


def test_thresholds_are_frozen_late_when_there_was_no_baseline() -> None:
    event = due(make_entry(baseline={}), new_baseline=Baseline(first_token=[1, 2, 3], requests=300))
    assert told(event) == ("baseline", "baseline")
    assert event is not None
    assert event.occasion is EventType.BASELINE
    assert event.facts["baseline"] == {
        "first_token": [1, 2, 3], "per_token": [], "error_rate": 0.0, "requests": 300,
    }  # fmt: skip


def test_nothing_is_due_in_a_rollout_that_ended() -> None:
    for state in ("rolled_back", "closed"):
        assert due(make_entry(state=state, weight=0), judgement=judgement(FAIL), forbidden="gone") is None
