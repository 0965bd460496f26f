"""Paired tests on items: is one model better than another by more than a margin? Pure.

Owns the p-values and limits; not what is done about them. Differences are "candidate minus other" in the
direction where more is better. All tests are one-sided and take the items as an independent sample of what
is asked in use. Sources: McNemar (1947); Berger and Boos (1994) for the nuisance parameter; Janssen (1997)
for the studentised permutation test.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float64]

RESAMPLES = 9_999
_GAMMA = 2e-3  # what the confidence set of the discordant share may miss; added to the p-value
_GRID = 48
_LIMITS_GRID = 12  # limits are shown, not decided on


def binary_p_value(better: int, worse: int, items: int, margin: float) -> float:
    """Return the p-value of "the gain is at most `margin`", for outcomes that are right or wrong.

    `better` items are right in the candidate only, `worse` in the other only. Margin 0: the exact McNemar
    test. Else the exact distribution of `better − worse`, at the worst discordant share within its
    99.8 % confidence set; valid for every number of items.
    """
    if margin == 0:
        from scipy.stats import binom

        return float(binom.sf(better - 1, better + worse, 0.5)) if better + worse else 1.0
    return min(1.0, _worst_tail(better, worse, items, margin) + _GAMMA)


def binary_limits(better: int, worse: int, items: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return two-sided exact limits of the gain: the margins that `binary_p_value` does not reject."""
    level = (1 - confidence) / 2

    def lower(up: int, down: int) -> float:
        # The p-value rises with the margin; the limit is where it crosses the level.
        low, high = -1.0, (up - down) / items
        for _ in range(15):
            middle = (low + high) / 2
            rejected = _worst_tail(up, down, items, middle, _LIMITS_GRID) + _GAMMA <= level
            low, high = (middle, high) if rejected else (low, middle)
        return low

    return lower(better, worse), -lower(worse, better)


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
    draws = np.random.default_rng(seed)
    items = len(mine)
    found = []
    for start in range(0, resamples, 250):
        rows = min(250, resamples - start)
        weights = draws.multinomial(items, np.full(items, 1 / items), size=rows).astype(np.float64)
        found.append(figure(weights @ mine) - figure(weights @ other))
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


def _worst_tail(better: int, worse: int, items: int, margin: float, grid: int = _GRID) -> float:
    """Return the largest P(better − worse ≥ observed) over gains of `margin` and likely discordant shares."""
    from scipy.stats import beta

    if margin >= 1:
        return 1.0
    if margin <= -1:
        return 1.0 if better - worse <= -items else 0.0
    split = better + worse
    low = float(beta.ppf(_GAMMA / 2, split, items - split + 1)) if split else 0.0
    high = float(beta.ppf(1 - _GAMMA / 2, split + 1, items - split)) if split < items else 1.0
    low, high = max(low, abs(margin)), max(high, abs(margin))
    shares = np.linspace(low, high, grid)
    return float(_tails(better - worse, items, (shares + margin) / 2, (shares - margin) / 2).max())


def _tails(observed: int, items: int, up: Floats, down: Floats) -> Floats:
    """Return P(sum ≥ observed) of `items` steps of +1 (prob. `up`), −1 (`down`), else 0; by Fourier."""
    size = 2 * items + 1
    angle = 2 * np.pi * np.arange(size) / size
    step = up[:, None] * np.exp(1j * angle) + down[:, None] * np.exp(-1j * angle) + (1 - up - down)[:, None]
    # The transform of the sum, shifted by `items` so that index 0 is −items.
    transform = step**items * np.exp(1j * angle * items)
    masses = np.fft.fft(transform, axis=1).real / size
    return np.asarray(np.clip(masses[:, observed + items :].sum(axis=1), 0.0, 1.0))


def _t_statistics(rows: Floats) -> Floats:
    count = rows.shape[1]
    mean = rows.mean(axis=1)
    # All equal: an infinite t of the mean's sign.
    spread = np.maximum(rows.std(axis=1, ddof=1), 1e-12)
    return np.asarray(mean / spread * np.sqrt(count))
