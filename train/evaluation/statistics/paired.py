"""Paired tests on items: is one model better than another by more than a margin? Pure.

Owns the p-values of scores and of corpus figures, and Wilson's interval; right or wrong is `binary.py`.
Differences are "candidate minus other" in the direction where more is better. All tests are one-sided and
take the items as an independent sample of what is asked in use. Source of the studentised permutation
test: Janssen (1997).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float64]

RESAMPLES = 9_999


def score_p_value(differences: Floats, margin: float, seed: int) -> float:
    """Return the p-value of "the mean difference is at most `margin`" by sign flips of the t statistic.

    Exact where the differences are symmetric about the margin (two equal models); else right for many
    items, which the studentised statistic makes about twenty.
    """
    shifted = differences - margin
    if len(shifted) < 2 or not np.any(shifted):
        return 1.0
    observed = _t_statistics(shifted[None, :])[0]
    flips = np.random.default_rng(seed)
    beyond = 0
    for start in range(0, RESAMPLES, 1_000):
        rows = min(1_000, RESAMPLES - start)
        signs = flips.integers(0, 2, (rows, len(shifted)), dtype=np.int8) * 2 - 1
        beyond += int(np.sum(_t_statistics(shifted * signs) >= observed - 1e-12))
    return (1 + beyond) / (1 + RESAMPLES)


def bootstrap(
    figure: Callable[[Floats], Floats], mine: Floats, other: Floats, seed: int, resamples: int = 2_000
) -> Floats:
    """Return `resamples` differences of a corpus figure, items drawn with replacement, pairs kept.

    `mine` and `other` are (items, parts); `figure` makes (resamples,) figures of (resamples, parts) sums.
    """
    return resampled(figure, mine, seed, resamples) - resampled(figure, other, seed, resamples)


def resampled(figure: Callable[[Floats], Floats], sums: Floats, seed: int, resamples: int = 1_000) -> Floats:
    """Return `resamples` figures of items drawn with replacement; one seed draws the same items."""
    draws = np.random.default_rng(seed)
    items = len(sums)
    found = []
    for start in range(0, resamples, 250):
        rows = min(250, resamples - start)
        weights = draws.multinomial(items, np.full(items, 1 / items), size=rows)
        found.append(figure(weights.astype(np.float64) @ sums))
    return np.concatenate(found)


def swap_p_value(
    figure: Callable[[Floats], Floats], mine: Floats, other: Floats, seed: int, resamples: int = 2_000
) -> float:
    """Return the p-value of "the two models are alike" by swapping their answers item by item.

    Exact for any figure when the models are exchangeable (approximate randomisation).
    """
    draws = np.random.default_rng(seed)
    observed = float((figure(mine.sum(0)[None]) - figure(other.sum(0)[None]))[0])
    beyond = 0
    for start in range(0, resamples, 250):
        rows = min(250, resamples - start)
        keep = draws.integers(0, 2, (rows, len(mine))).astype(np.float64)
        first = keep @ mine + (1 - keep) @ other
        second = keep @ other + (1 - keep) @ mine
        beyond += int(np.sum(figure(first) - figure(second) >= observed - 1e-12))
    return (1 + beyond) / (1 + resamples)


def wilson(right: float, items: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return Wilson's score interval of a share."""
    from scipy.stats import norm

    if items == 0:
        return 0.0, 1.0
    z = float(norm.ppf(0.5 + confidence / 2))
    share = right / items
    centre = share + z * z / (2 * items)
    half = z * float(np.sqrt(share * (1 - share) / items + z * z / (4 * items * items)))
    scale = 1 + z * z / items
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


def _t_statistics(rows: Floats) -> Floats:
    count = rows.shape[1]
    mean = rows.mean(axis=1)
    # All equal: an infinite t of the mean's sign.
    spread = np.maximum(rows.std(axis=1, ddof=1), 1e-12)
    return np.asarray(mean / spread * np.sqrt(count))
