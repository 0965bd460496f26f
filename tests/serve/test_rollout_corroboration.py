"""No source alone raises or hides an alarm that a client can make; what all see stays an alarm."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from serve.rollout.assignment import Arm
from serve.rollout.decision.health import Health, check_health
from serve.rollout.decision.machine import DISPUTED, transition
from serve.rollout.decision.preflight import Preflight
from serve.rollout.decision.proposal import Situation, propose
from serve.rollout.decision.states import Event, EventType
from serve.rollout.policy import (
    ErrorMetric,
    EvidenceShares,
    FeedbackMetric,
    FormatMetric,
    HealthLimits,
    LatencyMetric,
    Policy,
    PolicyMetrics,
    RampStep,
)
from serve.rollout.recording.evidence import Baseline, Evidence, Recent, ReplicaEvidence
from serve.rollout.recording.keeper import EvidenceWriter
from serve.rollout.recording.pooling import pool
from serve.rollout.recording.recorder import Recorder
from serve.rollout.recording.sources import Source
from serve.rollout.statistics.judge import judge
from serve.rollout.statistics.judgement import Judgement, MetricCheck, MetricVerdict
from tests.fakes.rollouts import BASE, make_entry, unit
from tests.fakes.served import make_root

POLICY = Policy(
    steps=(RampStep(weight=5_000, min_units=30, min_seconds=0),),
    metrics=PolicyMetrics(
        errors=ErrorMetric(), latency=LatencyMetric(), feedback=FeedbackMetric(), format=FormatMetric()
    ),
)
UNCAPPED = EvidenceShares(group_share=1, key_share=1)
KNOWN = Baseline.model_validate(dict(BASE.baseline))
USERS, RIVAL = Source("users", "u"), Source("rivals", "r")
Sees = Callable[[Arm], dict[str, Any]]


def fine(_: Arm) -> dict[str, Any]:
    return {"first_token": 0.05, "per_token": 0.01, "text": "yes", "score": 1.0}


def slow(arm: Arm) -> dict[str, Any]:
    return {**fine(arm), "first_token": 9.0 if arm is Arm.CANARY else 0.05}


def empty(arm: Arm) -> dict[str, Any]:
    return {**fine(arm), "text": "" if arm is Arm.CANARY else "yes"}


def disliked(arm: Arm) -> dict[str, Any]:
    return {**fine(arm), "score": 0.0 if arm is Arm.CANARY else 1.0}


def praised(arm: Arm) -> dict[str, Any]:
    return {**fine(arm), "score": 1.0 if arm is Arm.CANARY else 0.0}


def failing(arm: Arm) -> dict[str, Any]:
    return {"outcome": "engine_error" if arm is Arm.CANARY else "ok"}


def seen(users: Sees, rival: Sees, policy: Policy = POLICY, rounds: int = 120) -> Evidence:
    """Return what a replica wrote after users and rival sent by turns, in either arm by turns."""
    clock = [0.0]
    one = Recorder(make_entry(policy, weight=5_000), "r1", clock=lambda: clock[0])
    for number in range(2 * rounds):
        source, sees = (USERS, users) if number % 2 else (RIVAL, rival)
        arm = Arm.CANARY if number % 4 < 2 else Arm.STABLE
        clock[0] = float(number)
        what = {"outcome": "ok", **sees(arm)}
        score = what.pop("score", None)
        one.observe(one.segment, arm, unit(number), first_turn=True, source=source, **what)
        if score is not None:
            one.rate(arm, unit(number), score, source)
    one.book_forms(one.judge(one.take_answers()))
    document = ReplicaEvidence.model_validate_json(one.document().model_dump_json())
    return pool([document], step=0)


def checks(evidence: Evidence, policy: Policy = POLICY) -> dict[str, MetricCheck]:
    return {check.metric: check for check in judge(policy, evidence, KNOWN).checks}


MADE = [("first_token", slow), ("format", empty), ("feedback", disliked)]


@pytest.mark.parametrize(("metric", "harm"), MADE)
def test_what_one_group_alone_sees_is_disputed_and_named(metric: str, harm: Sees) -> None:
    check = checks(seen(fine, harm))[metric]
    assert (check.verdict, check.disputed) == (MetricVerdict.SUSPICIOUS, True)
    assert "rivals alone raises this alarm" in check.sentence


@pytest.mark.parametrize(("metric", "harm"), MADE)
def test_what_both_groups_see_is_an_alarm(metric: str, harm: Sees) -> None:
    check = checks(seen(harm, harm))[metric]
    assert (check.verdict, check.disputed) == (MetricVerdict.FAIL, False)


@pytest.mark.parametrize(("metric", "harm"), MADE)
def test_shares_of_1_let_one_group_decide(metric: str, harm: Sees) -> None:
    policy = POLICY.model_copy(update={"evidence": UNCAPPED})
    assert checks(seen(fine, harm, policy), policy)[metric].verdict is MetricVerdict.FAIL


def test_an_alarm_that_one_group_hides_is_disputed() -> None:
    check = checks(seen(disliked, praised))["feedback"]
    assert (check.verdict, check.disputed) == (MetricVerdict.SUSPICIOUS, True)
    assert "rivals alone hides an alarm" in check.sentence


def test_failures_of_the_version_need_nobodys_agreement() -> None:
    assert checks(seen(fine, failing))["errors"].verdict is MetricVerdict.FAIL


def test_without_any_harm_nothing_is_disputed() -> None:
    assert not any(check.disputed for check in checks(seen(fine, fine)).values())


def test_who_is_alone_needs_nobodys_agreement() -> None:
    one = Recorder(make_entry(POLICY, weight=5_000), "r1", clock=lambda: 1.0)
    for number in range(100):
        arm = Arm.CANARY if number % 2 else Arm.STABLE
        one.observe(
            one.segment,
            arm,
            unit(number),
            "ok",
            first_turn=True,
            source=USERS,
            first_token=9.0 * (number % 2),
        )
    evidence = pool([one.document()], step=0)
    assert evidence.without == {}
    assert checks(evidence)["first_token"].verdict is MetricVerdict.FAIL


def test_a_disputed_alarm_holds_and_a_hold_that_nobody_ends_becomes_a_pause() -> None:
    found = judge(POLICY, seen(fine, disliked), KNOWN)
    entry = make_entry(POLICY, weight=5_000)
    event = decide(entry, found, at=1_010.0)
    assert event is not None
    assert (event.occasion, event.reason) == (EventType.HOLD, DISPUTED)
    held = transition(entry, event, POLICY, 1_010.0)
    assert (held.state, held.weight, held.reason) == ("hold", 5_000, DISPUTED)
    assert decide(held, found, at=1_020.0) is None
    late = decide(held, found, at=1_020.0 + POLICY.hold_seconds)
    assert late is not None
    assert transition(held, late, POLICY, 90_000.0).state == "paused"
    calm = judge(POLICY, seen(fine, fine), KNOWN)
    cleared = decide(held, calm, at=1_020.0)
    assert cleared is not None
    assert cleared.occasion is EventType.CLEAR


def decide(entry: Any, found: Judgement, at: float) -> Event | None:
    evidence = Evidence(step_units=60)
    now = Situation(found, evidence, Preflight(ready=True), Health(measured=True))
    return propose(entry, POLICY, now, "replica r1", at)


LIMITS = HealthLimits(min_requests=20)


def lately(users: tuple[int, int], rival: tuple[int, int]) -> list[ReplicaEvidence]:
    """Return evidence in which both gave that many fast and slow answers lately."""
    fast, late = 20, 60  # places of about 40 ms and of a minute
    parts = {
        name: Recent(requests=sum(counts), first_token={fast: counts[0], late: counts[1]})
        for name, counts in (("users", users), ("rivals", rival))
    }
    whole = Recent(
        requests=sum(users) + sum(rival),
        first_token={fast: users[0] + rival[0], late: users[1] + rival[1]},
        sources=parts,
    )
    return [ReplicaEvidence(rollout="r", adapter="support", replica="r1", at=1.0, recent={"stable": whole})]


@pytest.mark.parametrize(
    ("users", "rival", "degraded"),
    [
        ((40, 0), (0, 100), False),
        ((0, 40), (0, 100), True),
        ((5, 0), (0, 100), True),
        ((40, 0), (100, 0), False),
    ],
    ids=["one alone is slow", "both are slow", "the others are too few to contradict", "nobody is slow"],
)
def test_an_arm_is_degraded_unless_enough_others_say_that_it_is_not(
    users: tuple[int, int], rival: tuple[int, int], degraded: bool
) -> None:
    found = lately(users, rival)
    assert check_health(found, KNOWN, LIMITS).stable_degraded is degraded
    whole = check_health(found, KNOWN, LIMITS, UNCAPPED)
    assert whole.stable_degraded is (sum(rival[1:]) > 0)


def test_a_source_of_sources_is_refused() -> None:
    nested: dict[str, Any] = {"sources": {"a": {"sources": {"b": {}}}}}
    with pytest.raises(ValueError, match="a source has sources"):
        Recent.model_validate(nested)


def test_what_a_replica_writes_names_its_sources_lately(tmp_path: Path) -> None:
    registry = make_root(tmp_path)
    clock = [1_000.0]
    writer = EvidenceWriter(registry, "r1", lambda: clock[0], givers=lambda _: frozenset({"users", "rivals"}))
    entry = replace(make_entry(POLICY, weight=5_000), adapter="support")
    one = writer.find(entry)
    asyncio.run(writer.keep())
    for number in range(8):
        source = USERS if number % 2 else RIVAL
        one.observe(
            one.segment, Arm.STABLE, unit(number), "ok", first_turn=True, source=source, first_token=0.1
        )
    clock[0] += 1
    asyncio.run(writer.keep())
    document = writer.document(entry.rollout)
    assert document is not None
    recent = document.recent["stable"]
    assert recent.requests == 8
    assert {name: part.requests for name, part in recent.sources.items()} == {"users": 4, "rivals": 4}
