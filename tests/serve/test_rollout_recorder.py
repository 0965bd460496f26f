"""One replica's counts: the arm assigned, firsts of units, brakes, restarts, forms."""

from __future__ import annotations

from typing import Any

import pytest

from serve.rollout.assignment import Arm
from serve.rollout.policy import FormatMetric, Policy, PolicyMetrics
from serve.rollout.recording.evidence import MAX_FIRST_UNITS, ReplicaEvidence
from serve.rollout.recording.recorder import Recorder, has_form
from tests.fakes.rollouts import POLICY, make_entry, unit


def recorder(policy: Policy = POLICY, **changes: Any) -> Recorder:
    return Recorder(make_entry(policy, **changes), "r1", clock=lambda: 50.0)


def observe(one: Recorder, arm: Arm, number: int, outcome: str = "ok", **more: Any) -> None:
    more.setdefault("first_turn", True)
    one.observe(one.segment, arm, unit(number), outcome, **more)


def test_a_unit_fails_once_however_often_it_does() -> None:
    one = recorder()
    for _ in range(3):
        observe(one, Arm.CANARY, 7, "engine_error")
    observe(one, Arm.CANARY, 8, "timeout")
    tally = one.document().segments[0].arms["canary"]
    assert (tally.requests, tally.units, tally.silent, tally.failed) == (4, 2, 1, [unit(7)])
    assert tally.outcomes == {"engine_error": 3, "timeout": 1}


@pytest.mark.parametrize("outcome", ["client_error", "cancelled", "rejected", "timeout", "repeated", "ok"])
def test_what_is_not_the_arms_fault_is_no_failure(outcome: str) -> None:
    one = recorder()
    observe(one, Arm.CANARY, 7, outcome)
    assert one.document().segments[0].arms["canary"].failed == []


def test_a_request_is_booked_where_it_was_assigned_also_when_it_ends_later() -> None:
    one = recorder()
    segment = one.segment
    one.follow(make_entry(seq=3, weight=5_000, step=1))
    one.observe(segment, Arm.CANARY, unit(1), "engine_error", first_turn=True, rescued=True)
    observe(one, Arm.CANARY, 2)
    early, late = one.document().segments
    assert (early.seq, early.weight, early.arms["canary"].failed) == (2, 1_000, [unit(1)])
    assert early.arms["canary"].rescued == 1
    assert (late.seq, late.weight, late.step, late.arms["canary"].requests) == (3, 5_000, 1, 1)


def test_latency_is_tested_once_per_unit_and_only_on_first_turns() -> None:
    one = recorder()
    observe(one, Arm.CANARY, 1, first_token=0.3, per_token=0.01)
    observe(one, Arm.CANARY, 1, first_token=9.0, per_token=9.0)
    observe(one, Arm.CANARY, 2, first_token=9.0, first_turn=False)
    tally = one.document().segments[0].arms["canary"]
    assert (tally.first_token.count, tally.first_token.over) == (1, [1, 1, 0])
    assert (tally.per_token.count, tally.per_token.over) == (1, [0, 0, 0])
    assert sum(tally.first_token.histogram) == 3


def test_without_frozen_thresholds_nothing_exceeds_them() -> None:
    one = recorder(baseline={})
    observe(one, Arm.STABLE, 1, first_token=0.3)
    tally = one.document().segments[0].arms["stable"]
    assert tally.first_token.count == 0
    assert sum(tally.first_token.histogram) == 1


def test_a_brake_sends_nobody_to_the_canary_and_counts_under_weight_0() -> None:
    one = recorder()
    observe(one, Arm.STABLE, 1)
    one.brake("an alarm")
    assert one.split.weight == 0
    observe(one, Arm.STABLE, 2)
    one.brake("")
    assert one.split.weight == 1_000
    observe(one, Arm.STABLE, 3)
    assert [segment.weight for segment in one.document().segments] == [1_000, 0, 1_000]


def test_under_a_brake_the_allow_list_is_empty_too() -> None:
    one = recorder(POLICY.model_copy(update={"allow": ("ann",), "deny": ("bob",)}))
    assert one.split.allow == {"ann"}
    one.brake("an alarm")
    assert (one.split.allow, one.split.deny) == (frozenset[str](), frozenset({"bob"}))


def test_an_older_record_changes_nothing() -> None:
    one = recorder(seq=5, weight=5_000)
    one.follow(make_entry(seq=4, weight=1_000))
    assert one.split.weight == 5_000


def test_a_restart_takes_its_counts_back_once() -> None:
    before = recorder()
    observe(before, Arm.CANARY, 1, "engine_error")
    before.rate(Arm.CANARY, unit(1), 0.25)
    written = ReplicaEvidence.model_validate_json(before.document().model_dump_json())
    after = recorder()
    observe(after, Arm.CANARY, 2, "engine_error")
    after.restore(written)
    after.restore(written)
    observe(after, Arm.CANARY, 1, "engine_error")
    after.rate(Arm.CANARY, unit(1), 1.0)
    failed = [name for segment in after.document().segments for name in segment.arms["canary"].failed]
    ratings = [rating.score for one in after.document().segments for rating in one.arms["canary"].ratings]
    assert sorted(failed) == [unit(1), unit(2)]
    assert ratings == [0.25]


def test_another_rollouts_evidence_is_not_taken_back() -> None:
    other = recorder(rollout="ffeeddccbbaa9988")
    observe(other, Arm.CANARY, 1)
    one = recorder()
    one.restore(other.document())
    assert one.document().segments == []


def test_firsts_are_kept_up_to_a_limit() -> None:
    one = recorder()
    for number in range(MAX_FIRST_UNITS + 10):
        observe(one, Arm.CANARY, number, "engine_error")
    assert len(one.document().segments[0].arms["canary"].failed) == MAX_FIRST_UNITS


def test_forms_are_looked_at_when_there_is_time_once_per_unit() -> None:
    policy = POLICY.model_copy(update={"metrics": PolicyMetrics(format=FormatMetric(kind="json"))})
    one = recorder(policy)
    observe(one, Arm.CANARY, 1, text='{"a": 1}')
    observe(one, Arm.CANARY, 2, text=lambda: "no json")
    observe(one, Arm.CANARY, 2, text="no json")
    observe(one, Arm.CANARY, 3, text=lambda: None)
    observe(one, Arm.CANARY, 4, "engine_error", text="no json")
    assert one.document().segments[0].arms["canary"].judged == 0
    one.book_forms(one.judge(one.take_answers()))
    tally = one.document().segments[0].arms["canary"]
    assert (tally.judged, tally.malformed) == (2, [unit(2)])


@pytest.mark.parametrize(
    ("form", "text", "fits"),
    [
        (FormatMetric(kind="json"), ' {"a": [1]} ', True),
        (FormatMetric(kind="json"), "{'a': 1}", False),
        (FormatMetric(kind="nonempty"), " \n", False),
        (FormatMetric(kind="regex", pattern=r"^[A-Z]\d\d"), "J45.0", True),
        (FormatMetric(kind="regex", pattern=r"^[A-Z]\d\d"), "asthma", False),
        (FormatMetric(kind="not_regex", pattern="(?i)i cannot"), "I cannot help", False),
        (FormatMetric(kind="not_regex", pattern="(?i)i cannot"), "Sure", True),
    ],
)
def test_a_form_is_kept_or_broken(form: FormatMetric, text: str, fits: bool) -> None:
    assert has_form(form, text) is fits


def test_pairs_are_counted_by_who_failed() -> None:
    one = recorder()
    for stable_ok, canary_ok in ((True, True), (True, False), (False, True), (False, False), (True, False)):
        one.compare(stable_ok=stable_ok, canary_ok=canary_ok)
    one.drop_pair()
    observe(one, Arm.STABLE, 1)
    pairs = one.document().segments[0].pairs
    assert pairs.model_dump() == {
        "both_ok": 1, "canary_failed": 2, "stable_failed": 1, "both_failed": 1, "dropped": 1,
    }  # fmt: skip
