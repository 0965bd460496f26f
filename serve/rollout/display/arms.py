"""What each arm did, as people compare them: counts, rates with intervals, medians, means.

Pure functions of evidence. For the eye only: what decides is `serve.rollout.statistics`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from registry.entries.rollouts import FULL_WEIGHT
from serve.rollout.documents import ArmDocument, RateDocument
from serve.rollout.recording.evidence import ArmCounts, ArmTally, Evidence, ReplicaEvidence
from serve.rollout.recording.pooling import distinct, quantile

_Z = 1.959964  # of 95 %


def arms(
    documents: Sequence[ReplicaEvidence], evidence: Evidence, versions: Mapping[str, str]
) -> dict[str, ArmDocument]:
    """Return each arm of `versions` (arm → version's name) over the whole rollout.

    What was seen under weight 0 (a brake, a hold) or full weight (the promotion) is left out, as in the
    tests.
    """
    return {
        name: _arm(name, version, _tallies(documents, name), evidence) for name, version in versions.items()
    }


def rate(count: int, of: int) -> RateDocument:
    """Return a rate with its 95 % Wilson interval; without a unit it is anything from 0 to 1."""
    if of <= 0:
        return RateDocument(count=count, of=0, value=None, low=0.0, high=1.0)
    count = min(count, of)
    value, square = count / of, _Z * _Z
    middle = (value + square / (2 * of)) / (1 + square / of)
    half = _Z / (1 + square / of) * math.sqrt(value * (1 - value) / of + square / (4 * of * of))
    low = 0.0 if count == 0 else max(0.0, middle - half)
    high = 1.0 if count == of else min(1.0, middle + half)
    return RateDocument(count=count, of=of, value=value, low=low, high=high)


def _arm(name: str, version: str, tallies: list[ArmTally], evidence: Evidence) -> ArmDocument:
    counts = [getattr(cell, name) for cell in evidence.cells]
    scores = [score.score for score in evidence.scores if score.canary == (name == "canary")]
    if name not in {"stable", "canary"}:
        scores = []
    units = distinct(tallies)
    return ArmDocument(
        version=version,
        units=units,
        requests=sum(tally.requests for tally in tallies),
        errors=rate(_sum(counts, "failures"), units),
        malformed=rate(_sum(counts, "malformed"), _sum(counts, "judged")),
        outcomes=_count(tally.outcomes for tally in tallies),
        finish=_count(tally.finish for tally in tallies),
        rescued=sum(tally.rescued for tally in tallies),
        first_token_median=_median(tally.first_token.histogram for tally in tallies),
        per_token_median=_median(tally.per_token.histogram for tally in tallies),
        output_tokens_mean=_mean_tokens(tallies),
        ratings=len(scores),
        feedback_mean=sum(scores) / len(scores) if scores else None,
    )


def _tallies(documents: Iterable[ReplicaEvidence], arm: str) -> list[ArmTally]:
    return [
        segment.arms[arm]
        for document in documents
        for segment in document.segments
        if 0 < segment.weight < FULL_WEIGHT and arm in segment.arms
    ]


def _sum(counts: Iterable[ArmCounts], field: str) -> int:
    return sum(getattr(one, field) for one in counts)


def _count(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for one in counts:
        total.update(one)
    return dict(sorted(total.items()))


def _median(histograms: Iterable[Sequence[int]]) -> float | None:
    total: Counter[int] = Counter()
    for histogram in histograms:
        total.update({place: count for place, count in enumerate(histogram) if count})
    return quantile(dict(total), 0.5)


def _mean_tokens(tallies: Sequence[ArmTally]) -> float | None:
    # Only complete answers are counted in tokens.
    answered = sum(tally.outcomes.get("ok", 0) for tally in tallies)
    return sum(tally.output_tokens for tally in tallies) / answered if answered else None
