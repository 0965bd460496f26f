"""All replicas' evidence as one: what counts for tests, each unit once. Pure functions of documents.

Invariants: segments under weight 0 or full weight (a brake, a hold, a promotion) count for no test; a
unit's first failure, broken form and rating count once over replicas, steps and restarts, for the arm
that it was assigned to then.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from registry.entries.rollouts import FULL_WEIGHT
from serve.exposition import bucket_quantile
from serve.rollout.recording.attributing import give_parts, leave_each_out
from serve.rollout.recording.evidence import (
    LATENCY_BOUNDS,
    SKETCH_SIZE,
    ArmCounts,
    ArmName,
    ArmTally,
    Cell,
    Evidence,
    Exceedances,
    Recent,
    ReplicaEvidence,
    Segment,
    ShadowPairs,
    UnitScore,
)

_HASHES = float(1 << 64)
Times = tuple[int, int, int, int]


def pool(documents: Sequence[ReplicaEvidence], *, step: int) -> Evidence:
    """Return the united evidence; `step` is the present one, whose canary units are counted."""
    segments = sorted(
        (segment for document in documents for segment in document.segments),
        key=lambda one: (one.seq, one.began),
    )
    tested = [segment for segment in segments if 0 < segment.weight < FULL_WEIGHT]
    cells, scores, parts = _cells(tested), _scores(tested), give_parts(tested)
    return Evidence(
        cells=cells,
        scores=scores,
        pairs=_pairs(segments),
        step_units=_step_units(
            [
                one.arms["canary"]
                for one in segments
                if one.step == step and one.weight and "canary" in one.arms
            ]
        ),
        parts=parts,
        without=leave_each_out(parts, tested, cells, scores),
    )


def distinct(tallies: Sequence[ArmTally]) -> int:
    """Return how many distinct units the tallies saw together: exact below `SKETCH_SIZE`, else by sketch."""
    smallest = sorted({unit for tally in tallies for unit in tally.sketch})[:SKETCH_SIZE]
    if len(smallest) < SKETCH_SIZE:
        return len(smallest)
    estimate = (SKETCH_SIZE - 1) * _HASHES / max(int(smallest[-1], 16), 1)
    return max(SKETCH_SIZE, min(round(estimate), sum(tally.units for tally in tallies)))


def _step_units(tallies: Sequence[ArmTally]) -> int:
    return _telling(distinct(tallies), tallies)


def _telling(units: int, tallies: Sequence[ArmTally]) -> int:
    """Return how many of `units` had an outcome that counts: the share that had, of all that came."""
    came = sum(tally.units for tally in tallies)
    silent = sum(tally.silent for tally in tallies)
    return round(units * (came - silent) / came) if silent and came else units


def recent(documents: Iterable[ReplicaEvidence], arm: ArmName, without: str = "") -> Recent:
    """Return what an arm did lately on all replicas; with `without` what all but one source sent there."""
    total = Recent()
    for document in documents:
        found = document.recent.get(arm)
        if found is None:
            continue
        _count(total, found, 1)
        if without in found.sources:
            _count(total, found.sources[without], -1)
    return total


def recent_sources(documents: Iterable[ReplicaEvidence], arm: ArmName) -> set[str]:
    """Return the sources of which something is known lately."""
    return {name for document in documents if arm in document.recent for name in document.recent[arm].sources}


def _count(total: Recent, found: Recent, sign: int) -> None:
    """Add to a sum, or take out of it, never below nothing."""
    total.requests = max(0, total.requests + sign * found.requests)
    total.failures = max(0, total.failures + sign * found.failures)
    for mine, its in ((total.first_token, found.first_token), (total.per_token, found.per_token)):
        for place, count in its.items():
            mine[place] = max(0, mine.get(place, 0) + sign * count)


def quantile(histogram: dict[int, int] | Sequence[int], share: float) -> float | None:
    """Return the value (seconds) below which `share` of a histogram lies; None of an empty one.

    The buckets are those of `LATENCY_BOUNDS`; within one the values are taken as spread evenly.
    """
    return bucket_quantile(histogram, LATENCY_BOUNDS, share)


@dataclass(slots=True)
class _Seen:
    """Units that were counted already, whatever arm they had then."""

    failed: set[str] = field(default_factory=set)
    malformed: set[str] = field(default_factory=set)


def _cells(segments: Iterable[Segment]) -> tuple[Cell, ...]:
    seen = _Seen()
    found: dict[tuple[int, int], dict[str, ArmCounts]] = {}
    tallies: dict[tuple[int, int], dict[str, list[ArmTally]]] = {}
    for segment in segments:
        key = (segment.weight, segment.base_weight)
        arms = found.setdefault(key, {})
        for name, tally in segment.arms.items():
            arms[name] = _add(arms.get(name, ArmCounts()), tally, seen)
            tallies.setdefault(key, {}).setdefault(name, []).append(tally)
    nothing = ArmCounts()
    cells = []
    for key, arms in found.items():
        came = _units(tallies.get(key, {}))
        counted = {name: _told(arm, came[name], tallies[key][name]) for name, arm in arms.items()}
        cells.append(
            Cell(
                weight=key[0],
                stable=counted.get("stable", nothing),
                canary=counted.get("canary", nothing),
                base_weight=key[1],
                base=counted.get("base", nothing),
            )
        )
    return tuple(cells)


def _told(arm: ArmCounts, came: int, tallies: Sequence[ArmTally]) -> ArmCounts:
    # A unit that was silent under one replica and failed under another must not make more failures than
    # units.
    least = max(arm.failures, arm.malformed)
    return replace(arm, assigned=came, units=min(came, max(least, _telling(came, tallies))))


def _units(arms: Mapping[str, list[ArmTally]]) -> dict[str, int]:
    """Return each arm's distinct units, over segments and replicas.

    Exact while the sketches are. Beyond that all arms are scaled by one factor, so that the error of the
    sketches (3 %) cannot look like a mismatch of the split.
    """
    sums = {name: sum(tally.units for tally in tallies) for name, tallies in arms.items()}
    every = {name: distinct(tallies) for name, tallies in arms.items()}
    if all(count < SKETCH_SIZE for count in every.values()):
        return every
    factor = min(1.0, sum(every.values()) / max(1, sum(sums.values())))
    alone = all(len(tallies) == 1 for tallies in arms.values())  # nothing was counted twice
    return sums if alone else {name: round(count * factor) for name, count in sums.items()}


def _add(counts: ArmCounts, tally: ArmTally, seen: _Seen) -> ArmCounts:
    return ArmCounts(
        requests=counts.requests + tally.requests,
        failures=counts.failures + _first(tally.failed, seen.failed),
        judged=counts.judged + tally.judged,
        malformed=counts.malformed + _first(tally.malformed, seen.malformed),
        first_token=_sum(counts.first_token, tally.first_token),
        per_token=_sum(counts.per_token, tally.per_token),
    )


def _first(units: Sequence[str], seen: set[str]) -> int:
    new = set(units) - seen
    seen |= new
    return len(new)


def _sum(times: Times, found: Exceedances) -> Times:
    half, tenth, hundredth = (*found.over, 0, 0, 0)[:3]
    return times[0] + found.count, times[1] + half, times[2] + tenth, times[3] + hundredth


def _scores(segments: Iterable[Segment]) -> tuple[UnitScore, ...]:
    ratings = sorted(
        (rating.at, rating.unit, arm == "canary", segment.weight, rating.score, rating.source)
        for segment in segments
        for arm, tally in segment.arms.items()
        if arm in {"stable", "canary"}
        for rating in tally.ratings
    )
    seen: set[str] = set()
    scores: list[UnitScore] = []
    for at, unit, canary, weight, score, source in ratings:
        if unit not in seen:
            seen.add(unit)
            scores.append(UnitScore(at, canary, weight, score, source))
    return tuple(scores)


def _pairs(segments: Iterable[Segment]) -> dict[str, int]:
    total = dict.fromkeys(ShadowPairs.model_fields, 0)
    for segment in segments:
        for name in total:
            total[name] += getattr(segment.pairs, name)
    return total
