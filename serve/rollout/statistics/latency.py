"""Slower than before: shares of first turns that took longer than stable's frozen quantiles.

Thresholds from before the rollout make a latency a yes or no, so the test of failures applies, counters
are enough, replicas' counts add up, and no tail is assumed (`derivations.md` 5). A margin is one
of rates: at 1.25 the canary may exceed a quantile a quarter more often than stable does now.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from serve.rollout.policy import LatencyMetric
from serve.rollout.recording.evidence import Baseline
from serve.rollout.statistics import verdicts
from serve.rollout.statistics.carrying import mix
from serve.rollout.statistics.checks import Test, dense
from serve.rollout.statistics.imbalance import log_imbalance_e, log_worst_e
from serve.rollout.statistics.judgement import MetricCheck
from serve.rollout.statistics.looks import Counts, PooledCells
from serve.rollout.statistics.share import Floats

PER_TOKEN_WEIGHTS = np.array([1.0, 1.0, 1.0]) / 3
"""Of the quantiles 50, 90 and 99 %: shifts show at the first, rare stalls at the last."""

FIRST_TOKEN_WEIGHTS = np.array([0.5, 0.5, 0.0])
"""Without the 99 %: a canary's prefix cache starts cold, and three such turns would stop the ramp."""

MISSING_E = 1_000.0
"""Against "values are missing in both arms alike": from here on latencies are not compared."""


def judge_latency(look: PooledCells, metric: LatencyMetric, baseline: Baseline) -> Iterator[MetricCheck]:
    """Judge the time per token and to the first token, each with half of the metric's alpha."""
    alpha = metric.alpha / 2
    per_token = Test(look, alpha, metric.margin, mixed=3)
    yield _timed("per_token", per_token, PER_TOKEN_WEIGHTS, baseline.per_token)
    first_token = Test(look, alpha, metric.first_token_margin, mixed=2)
    yield _timed("first_token", first_token, FIRST_TOKEN_WEIGHTS, baseline.first_token)


def _timed(metric: str, test: Test, weights: Floats, limits: list[float]) -> MetricCheck:
    """Return the check of exceedances of the frozen `limits` (seconds), mixed over quantiles."""
    look = test.look
    each = [
        look.counts(lambda arm, place=place: getattr(arm, metric)[place], lambda arm: getattr(arm, metric)[0])  # type: ignore[misc]
        for place in (1, 2, 3)
    ]
    tenth = each[1]
    missing = _unevenly_missing(look, tenth)
    if len(limits) < len(weights) or missing:
        why = missing or "stable's times from before the rollout are not known yet"
        return _silent(metric, test, f"{metric.replace('_', ' ')}: {why}; it delays nothing", tenth)
    log_e = float(mix(np.array([test.log_e(counts) for counts in each]), weights))
    theirs = verdicts.of(tenth.stable.sum(), tenth.stable_units.sum())
    sentence = (
        f"{verdicts.of(tenth.canary.sum(), tenth.canary_units.sum())} canary first turns took more than "
        f"stable's 90 % of before ({limits[1]:.3g} s), {theirs} stable ones"
    )
    return test.check(metric, tenth, log_e, sentence, required=dense(look, tenth))


def _silent(metric: str, test: Test, sentence: str, counts: Counts) -> MetricCheck:
    """Return the check of a metric that cannot be compared: nothing known, nothing blocked."""
    silent = verdicts.verdict(0.0, test.alpha, sufficient=False)
    return MetricCheck(
        metric, silent, 0.0, test.alpha, sentence, needed=max(1, test.needed(counts)), required=False
    )


def _unevenly_missing(look: PooledCells, counts: Counts) -> str:
    """Return why values of the arms are not comparable, '' when they are: both must miss them alike."""
    values = np.column_stack((counts.canary_units, counts.stable_units))
    if log_worst_e(log_imbalance_e(values, look.pair_shares), look.steps) < np.log(MISSING_E):
        return ""
    ours, theirs = values.sum(axis=0)
    return f"{ours:,.0f} canary and {theirs:,.0f} stable units have a value, not as units are split"
