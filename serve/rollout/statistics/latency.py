"""Slower than before: shares of first turns that took longer than stable's frozen quantiles.

Thresholds from before the rollout make a latency a yes or no, so the test of failures applies, counters
are enough, replicas' counts add up, and no tail is assumed (shared/statistics.md 1.2). A margin is one
of rates: at 1.25 the canary may exceed a quantile a quarter more often than stable does now.
"""

from __future__ import annotations

import numpy as np

PER_TOKEN_WEIGHTS = np.array([1.0, 1.0, 1.0]) / 3
"""Of the quantiles 50, 90 and 99 %: shifts show at the first, rare stalls at the last."""

FIRST_TOKEN_WEIGHTS = np.array([0.5, 0.5, 0.0])
"""Without the 99 %: a canary's prefix cache starts cold, and three such turns would stop the ramp."""
