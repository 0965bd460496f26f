"""Many replicas' evidence as one, and the baselines that thresholds are frozen from."""

from __future__ import annotations

import random
from hashlib import blake2b
from typing import Any

import pytest

from serve.rollout.recording.baselines import LEAST_TIMES, WINDOW_SECONDS, BaselineArm, freeze, freeze_stable
from serve.rollout.recording.evidence import (
    LATENCY_BOUNDS,
    SKETCH_SIZE,
    ArmTally,
    Exceedances,
    Rating,
    Recent,
    ReplicaEvidence,
    Segment,
)
from serve.rollout.recording.pooling import distinct, pool, quantile, recent
from tests.fakes.rollouts import ROLLOUT, tally, unit


def replica(name: str, *segments: Segment) -> ReplicaEvidence:
    return ReplicaEvidence(rollout=ROLLOUT, adapter="support", replica=name, at=1.0, segments=list(segments))


def segment(seq: int, weight: int, step: int = 0, began: float = 0.0, **arms: ArmTally) -> Segment:
    return Segment(seq=seq, step=step, weight=weight, began=began, ended=began + 1, arms=arms)


def test_a_unit_that_fails_on_two_replicas_fails_once() -> None:
    first = replica("r1", segment(2, 1_000, canary=tally(10, failed=[unit(1), unit(2)])))
    second = replica("r2", segment(2, 1_000, canary=tally(10, failed=[unit(2), unit(3)])))
    (cell,) = pool([first, second], step=0).cells
    assert cell.canary.failures == 3


def test_a_failure_stays_with_the_arm_and_weight_of_its_first_time() -> None:
    one = replica(
        "r1",
        segment(3, 5_000, 1, canary=tally(5, failed=[unit(1), unit(9)])),
        segment(2, 1_000, 0, stable=tally(5, failed=[unit(1)])),
    )
    low, high = pool([one], step=1).cells
    assert (low.weight, low.stable.failures, low.canary.failures) == (1_000, 1, 0)
    assert (high.weight, high.canary.failures) == (5_000, 1)


def test_a_brake_and_a_promotion_count_for_no_test() -> None:
    one = replica("r1", segment(2, 0, canary=tally(9)), segment(9, 10_000, canary=tally(9)))
    assert pool([one], step=0).cells == ()


def test_the_same_weight_after_a_pause_is_one_cell() -> None:
    one = replica("r1", segment(2, 1_000, canary=tally(3)), segment(4, 1_000, canary=tally(4, begin=50)))
    evidence = pool([one], step=0)
    assert [cell.canary.units for cell in evidence.cells] == [7]
    assert evidence.step_units == 7


def test_units_of_a_step_are_distinct_over_replicas() -> None:
    documents = [replica(name, segment(2, 1_000, canary=tally(20))) for name in ("r1", "r2")]
    assert pool(documents, step=0).step_units == 20
    assert pool(documents, step=1).step_units == 0


def test_a_sketch_counts_distinct_units_within_a_tenth() -> None:
    names = [blake2b(str(n).encode(), digest_size=8).hexdigest() for n in range(50_000)]
    random.Random(5).shuffle(names)
    halves = [names[:30_000], names[20_000:]]
    tallies = [ArmTally(units=len(half), sketch=sorted(half)[:SKETCH_SIZE]) for half in halves]
    assert distinct(tallies) == pytest.approx(50_000, rel=0.1)


def test_units_that_two_replicas_saw_count_once_and_leave_the_split_as_it_was() -> None:
    def names(begin: int, count: int) -> list[str]:
        return [blake2b(str(n).encode(), digest_size=8).hexdigest() for n in range(begin, begin + count)]

    def seen(units: list[str]) -> ArmTally:
        return ArmTally(units=len(units), sketch=sorted(units)[:SKETCH_SIZE])

    arms: dict[str, Any] = {"stable": seen(names(0, 9_000)), "canary": seen(names(9_000, 1_000))}
    documents = [replica(name, segment(2, 1_000, **arms)) for name in ("r1", "r2")]
    (cell,) = pool(documents, step=0).cells
    assert cell.stable.units == pytest.approx(9_000, rel=0.1)
    assert cell.stable.units / cell.canary.units == pytest.approx(9.0, rel=0.001)
    (alone,) = pool(documents[:1], step=0).cells
    assert (alone.stable.units, alone.canary.units) == (9_000, 1_000)


def test_ratings_come_in_order_of_time_and_once_per_unit() -> None:
    canary = ArmTally(
        ratings=[Rating(at=5.0, unit=unit(1), score=0.1), Rating(at=2.0, unit=unit(2), score=0.2)]
    )
    stable = ArmTally(ratings=[Rating(at=3.0, unit=unit(1), score=0.9)])
    documents = [
        replica("r1", segment(2, 1_000, canary=canary)),
        replica("r2", segment(2, 1_000, stable=stable)),
    ]
    scores = pool(documents, step=0).scores
    assert [(one.at, one.canary, one.score) for one in scores] == [(2.0, True, 0.2), (3.0, False, 0.9)]


def test_exceedances_and_pairs_add_up() -> None:
    times = ArmTally(first_token=Exceedances(count=10, over=[5, 2, 1]))
    documents = [replica(name, segment(2, 1_000, stable=times)) for name in ("r1", "r2")]
    documents[0].segments[0].pairs.canary_failed = 3
    evidence = pool(documents, step=0)
    assert evidence.cells[0].stable.first_token == (20, 10, 4, 2)
    assert evidence.pairs["canary_failed"] == 3


def test_what_an_arm_did_lately_adds_up_over_replicas() -> None:
    documents = [replica("r1"), replica("r2"), replica("r3")]
    for document in documents[:2]:
        document.recent = {"stable": Recent(requests=4, failures=1, first_token={3: 2})}
    found = recent(documents, "stable")
    assert (found.requests, found.failures, found.first_token) == (8, 2, {3: 4})


def test_a_quantile_lies_within_its_bucket() -> None:
    dice = random.Random(1)
    values = sorted(dice.lognormvariate(-1, 0.8) for _ in range(20_000))
    histogram = [0] * (len(LATENCY_BOUNDS) + 1)
    for value in values:
        histogram[sum(bound < value for bound in LATENCY_BOUNDS)] += 1
    for share in (0.5, 0.9, 0.99):
        assert quantile(histogram, share) == pytest.approx(values[int(share * len(values))], rel=0.05)
    assert quantile([0, 0], 0.5) is None


def test_a_baseline_is_frozen_from_all_replicas_and_only_from_enough() -> None:
    arms = [BaselineArm(0.0), BaselineArm(0.0)]
    for arm in arms:
        for _ in range(LEAST_TIMES // 2 - 1):
            arm.observe(0.1, 0.02, "ok")
    few = freeze([arm.document(1.0) for arm in arms])
    assert (few.first_token, few.requests) == ([], LEAST_TIMES - 2)
    for arm in arms:
        arm.observe(0.1, 0.02, "engine_error")
    enough = freeze([arm.document(1.0) for arm in arms])
    assert enough.first_token[0] == pytest.approx(0.1, rel=0.2)
    assert enough.error_rate == pytest.approx(2 / LEAST_TIMES)


def test_a_baseline_forgets_what_is_two_windows_old() -> None:
    arm = BaselineArm(0.0)
    arm.observe(None, None, "ok")
    assert arm.document(WINDOW_SECONDS).requests == 1
    assert arm.document(2 * WINDOW_SECONDS).requests == 0


def test_a_rollout_without_a_baseline_takes_stables_first_requests() -> None:
    histogram = [0] * (len(LATENCY_BOUNDS) + 1)
    histogram[30] = LEAST_TIMES
    stable = ArmTally(
        requests=200,
        outcomes={"ok": 190, "engine_error": 10, "timeout": 3},
        first_token=Exceedances(histogram=histogram),
    )
    found = freeze_stable([replica("r1", segment(2, 1_000, stable=stable))])
    assert LATENCY_BOUNDS[29] <= found.first_token[0] <= LATENCY_BOUNDS[30]
    assert (found.per_token, found.error_rate) == ([], 0.05)
