"""Slower than before: shares of first turns that took longer than stable's frozen quantiles.

Thresholds from before the rollout make a latency a yes or no, so the test of failures applies, counters
are enough, replicas' counts add up, and no tail is assumed (shared/statistics.md 1.2).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from serve.rollout.statistics.carrying import carry, mix
from serve.rollout.statistics.share import Floats, log_harm_e

PER_TOKEN_WEIGHTS = np.array([1.0, 1.0, 1.0]) / 3
"""Of the quantiles 50, 90 and 99 %: shifts show at the first, rare stalls at the last."""

FIRST_TOKEN_WEIGHTS = np.array([0.5, 0.5, 0.0])
"""Without the 99 %: a canary's prefix cache starts cold, and three such turns would look like harm."""


def log_slower_e(
    canary: ArrayLike, stable: ArrayLike, null: ArrayLike, weights: Floats, *, starts: int
) -> Floats:
    """Return the log e-value that the canary exceeds the quantiles more often than its share allows.

    `canary` and `stable` are counts [cell, quantile], `null` the shares [cell].
    """
    shares = np.asarray(null, float)[:, None]
    each = log_harm_e(canary, stable, shares)
    return mix(carry(each, starts), weights)
