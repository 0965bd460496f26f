"""Liked less: a bet, block by block, that the canary's next score is below stable's concurrent mean.

A block closes at a canary's score when stable has been scored since the last one; its gap is stable's mean
minus the canary's mean minus the tolerance. If the canary is no worse, the mean gap is at most 0 and no
stake, fixed before the gap is seen, makes money: the wealth is an e-process. Comparing neighbours makes it
proof against drift of the whole traffic (`derivations.md` 6).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serve.rollout.policy import FeedbackMetric
from serve.rollout.recording.evidence import UnitScore
from serve.rollout.statistics import verdicts
from serve.rollout.statistics.carrying import carry, start_weights
from serve.rollout.statistics.judgement import MetricCheck
from serve.rollout.statistics.looks import PooledCells
from serve.rollout.statistics.share import Floats

LARGEST_STAKE = 0.5
FIRST_VARIANCE = 0.25
"""Of scores in 0 … 1, at most; counts as one gap of 0 that was seen before the first."""

GROSS_DROP = 0.5
"""Of the mean score: gross harm, which sufficient evidence would have shown."""

UNITS_PER_RATING = 10
"""Assumed while nobody has rated the canary."""


@dataclass(frozen=True, slots=True)
class Blocks:
    """Closed blocks in order of time: each one's gap and the weight in force at its end."""

    gaps: Floats
    weights: tuple[int, ...]


def stake(count: Floats, total: Floats, squares: Floats) -> Floats:
    """Return the share of the wealth to bet on the next gap, from the gaps seen so far.

    `count`, `total` and `squares` are the number, the sum and the sum of squares of past gaps.
    """
    mean = total / (count + 1)
    variance = np.maximum((squares + FIRST_VARIANCE) / (count + 1) - mean**2, 1e-6)
    return np.asarray(np.clip(mean / (variance + mean**2), 0.0, LARGEST_STAKE))


def pair_scores(scores: Sequence[UnitScore], tolerance: float) -> Blocks:
    """Return the closed blocks of `scores`, which are sorted by time."""
    canary, values = _arrays(scores)
    ends = _block_ends(canary)
    if not ends.size:
        return Blocks(np.zeros(0), ())
    edges = np.concatenate(([0], ends + 1))

    def mean(of: np.ndarray) -> Floats:
        """Return each block's mean of one arm."""
        sums = np.concatenate(([0.0], np.cumsum(np.where(of, values, 0.0))))[edges]
        counts = np.concatenate(([0], np.cumsum(of)))[edges]
        return np.asarray(np.diff(sums) / np.diff(counts))

    return Blocks(mean(~canary) - mean(canary) - tolerance, tuple(scores[end].weight for end in ends))


def _block_ends(canary: np.ndarray) -> np.ndarray:
    """Return where blocks end: at a canary's score whose predecessor is stable's."""
    # A canary's score after another canary's belongs to the next block: stable has not spoken since.
    before = np.concatenate(([True], canary[:-1])) if canary.size else canary
    return np.flatnonzero(canary & ~before)


def log_growth(gaps: Floats) -> Floats:
    """Return the log growth of the wealth in each block, bets being placed on past gaps only."""
    count = np.arange(gaps.size, dtype=float)
    total = np.concatenate(([0.0], np.cumsum(gaps)[:-1])) if gaps.size else gaps
    squares = np.concatenate(([0.0], np.cumsum(gaps**2)[:-1])) if gaps.size else gaps
    return np.asarray(np.log1p(stake(count, total, squares) * gaps))


def judge_feedback(look: PooledCells, metric: FeedbackMetric) -> MetricCheck:
    """Judge the scores; they are sufficient when a drop of `GROSS_DROP` would be expected to show."""
    scores = look.evidence.scores
    blocks = pair_scores(scores, metric.tolerance)
    log_e = float(carry(_by_weight(blocks), look.steps))
    canary, values = _arrays(scores)
    rated = [int(np.count_nonzero(arm)) for arm in (~canary, canary)]
    means = [float(values[arm].mean()) if arm.any() else None for arm in (~canary, canary)]
    missing = max(0, blocks_needed(metric.alpha, look.steps) - blocks.gaps.size)
    if verdicts.is_proof(log_e, metric.alpha):
        missing = 0
    per_rating = look.canary_units / rated[1] if rated[1] else UNITS_PER_RATING
    needed = math.ceil(missing * max(1.0, per_rating))
    if all(rated):
        told = (
            f"the canary's {rated[1]:,} scores average {means[1]:.2f}, stable's {rated[0]:,} {means[0]:.2f}"
        )
    else:
        told = f"{rated[1]:,} canary and {rated[0]:,} stable scores"
    required = sum(rated) >= look.units / 2 > 0
    delays = "" if required or not missing else "; it delays nothing"
    return MetricCheck(
        metric="feedback",
        verdict=verdicts.verdict(log_e, metric.alpha, sufficient=not missing),
        log_e=log_e,
        alpha=metric.alpha,
        sentence=f"{told}: {verdicts.e_value(log_e, metric.alpha)}{verdicts.more(missing, 'scores')}{delays}",
        stable=means[0],
        canary=means[1],
        needed=needed,
        required=required,
    )


def blocks_needed(alpha: float, starts: int) -> int:
    """Return how many blocks a canary whose scores drop by `GROSS_DROP` needs to be caught."""
    growth = np.cumsum(log_growth(np.full(1_000, GROSS_DROP)))
    return int(np.searchsorted(growth, -np.log(alpha * start_weights(starts)[0]))) + 1


def _by_weight(blocks: Blocks) -> Floats:
    """Return the log growth of the wealth at each weight, in the order in which they were met."""
    growth, places = (
        log_growth(blocks.gaps),
        {weight: place for place, weight in enumerate(dict.fromkeys(blocks.weights))},
    )
    where = np.fromiter((places[weight] for weight in blocks.weights), int, len(blocks.weights))
    return np.asarray(np.bincount(where, weights=growth, minlength=len(places)))


def _arrays(scores: Sequence[UnitScore]) -> tuple[NDArray[np.bool_], Floats]:
    """Return who gave each score (True: a unit of the canary) and the scores."""
    canary = np.fromiter((one.canary for one in scores), bool, len(scores))
    return canary, np.fromiter((one.score for one in scores), float, len(scores))
