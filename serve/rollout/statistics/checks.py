"""Each metric at one look: its counts, its e-value, its verdict, and what is missing.

Tests of counts share one form: events (first ones of units) in both arms, by weight. A metric is required
when at least half of the units give it a value; one that few units speak of can alarm but not delay.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serve.rollout.policy import ErrorMetric, FormatMetric
from serve.rollout.statistics import verdicts
from serve.rollout.statistics.carrying import carry, mix
from serve.rollout.statistics.imbalance import log_imbalance_e, log_worst_e
from serve.rollout.statistics.judgement import MetricCheck
from serve.rollout.statistics.looks import Counts, PooledCells
from serve.rollout.statistics.planning import first_enough, gross_rate
from serve.rollout.statistics.shadow import log_pairs_e
from serve.rollout.statistics.share import FULL, Floats, log_harm_e

REQUIRED_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class Test:
    """A test of counts: its share of alpha and its margin.

    `first` are factors before those of the weights (the shadow's); `mixed` is how many e-values are averaged.
    """

    look: PooledCells
    alpha: float
    margin: float
    first: tuple[float, ...] = ()
    mixed: float = 1.0

    def log_e(self, counts: Counts) -> float:
        """Return the log e-value of harm, carried over weights."""
        factors = log_harm_e(counts.canary, counts.stable, self.look.null(self.margin))
        return self.carried(factors)

    def carried(self, factors: Floats) -> float:
        """Return the log e-value of one factor per weight."""
        starts = self.look.steps + len(self.first)
        return float(carry(np.concatenate((self.first, factors)), starts))

    def needed(self, counts: Counts) -> int:
        """Return how many canary units more would show gross harm; 0 when the present ones would have."""
        stable = counts.stable_rate or 0.0
        gross = float(gross_rate(stable, self.margin))
        null = self.look.null(self.margin)
        earlier = log_harm_e(gross * counts.canary_units[:-1], counts.stable[:-1], null[:-1])
        first = np.concatenate((self.first, earlier))
        threshold = np.log(self.mixed / self.alpha)
        expected = stable * self.look.stable_per_canary()

        def enough(extra: Floats) -> NDArray[np.bool_]:
            """Say for each number of units more whether gross harm would be expected to show."""
            failing = gross * (counts.canary_units[-1] + extra)
            newest = log_harm_e(failing, counts.stable[-1] + expected * extra, null[-1])
            before = np.broadcast_to(first[:, None], (first.size, extra.size))
            factors = np.concatenate((before, newest[None]))
            return np.asarray(carry(factors, self.look.steps + len(self.first)) >= threshold)

        return 0 if enough(np.zeros(1))[0] else first_enough(enough)

    def check(self, metric: str, counts: Counts, log_e: float, told: str, *, required: bool) -> MetricCheck:
        """Return the check of `counts` with its e-value and what is missing; `told` begins its sentence."""
        needed = 0 if verdicts.is_proof(log_e, self.alpha) else self.needed(counts)
        return MetricCheck(
            metric=metric,
            verdict=verdicts.verdict(log_e, self.alpha, sufficient=not needed),
            log_e=log_e,
            alpha=self.alpha,
            sentence=f"{told}: {verdicts.e_value(log_e, self.alpha)}{verdicts.more(needed)}",
            stable=counts.stable_rate,
            canary=counts.canary_rate,
            needed=needed,
            required=required,
        )


def errors(look: PooledCells, metric: ErrorMetric) -> MetricCheck:
    """Judge failures, first ones of units; the shadow's pairs are the first factor of the product."""
    counts = look.counts(lambda arm: arm.failures, lambda arm: arm.units)
    first = (log_pairs_e(look.evidence.pairs, metric.margin),) if look.policy.shadow else ()
    test = Test(look, metric.alpha, metric.margin, first)
    return _counted("errors", test, counts, "failed", required=True)


def form(look: PooledCells, metric: FormatMetric) -> MetricCheck:
    """Judge answers that break the required form, first ones of units."""
    counts = look.counts(lambda arm: arm.malformed, lambda arm: arm.judged)
    test = Test(look, metric.alpha, metric.margin)
    return _counted("format", test, counts, f"broke the form ({metric.kind})", required=dense(look, counts))


def shadow(look: PooledCells) -> MetricCheck:
    """Judge the shadowed pairs alone, with the shadow's own alpha."""
    wanted = look.policy.shadow
    assert wanted is not None
    pairs, margin = (
        look.evidence.pairs,
        look.policy.metrics.errors.margin if look.policy.metrics.errors else 1.0,
    )
    log_e, seen = log_pairs_e(pairs, margin), look.evidence.compared
    needed = 0 if verdicts.is_proof(log_e, wanted.alpha) else max(0, wanted.pairs - seen)
    both = pairs.get("both_failed", 0)
    ours, theirs = pairs.get("canary_failed", 0), pairs.get("stable_failed", 0)
    sentence = (
        f"of {seen:,} shadowed pairs the canary alone failed {ours:,}, stable alone {theirs:,}, "
        f"both {both:,}: {verdicts.e_value(log_e, wanted.alpha)}{verdicts.more(needed, 'pairs')}"
    )
    return MetricCheck(
        metric="shadow",
        verdict=verdicts.verdict(log_e, wanted.alpha, sufficient=not needed),
        log_e=log_e,
        alpha=wanted.alpha,
        sentence=sentence,
        stable=(theirs + both) / seen if seen else None,
        canary=(ours + both) / seen if seen else None,
        needed=needed,
        required=False,  # once the ramp has begun its own units speak
    )


def imbalance(look: PooledCells) -> MetricCheck:
    """Judge whether units, and ratings where there are any, fall into arms as the weights say."""
    alpha = look.policy.imbalance_alpha
    rated = _rated(look)
    units = [[cell.canary.came, cell.stable.came, cell.base.came] for cell in look.cells]
    log_e = log_worst_e(log_imbalance_e(units, look.shares), look.steps)
    if rated.sum():
        log_ratings = log_worst_e(log_imbalance_e(rated, look.pair_shares), look.steps)
        log_e = float(mix(np.array([log_e, log_ratings]), np.array([0.5, 0.5])))
    worst = look.cells[-1]
    expected = worst.weight / FULL * (worst.canary.came + worst.stable.came + worst.base.came)
    sentence = (
        f"the canary got {worst.canary.came:,} units at {worst.weight / 100:g} %, {expected:,.0f} were "
        f"expected: {verdicts.e_value(log_e, alpha)}"
    )
    found = verdicts.verdict(log_e, alpha, sufficient=look.units > 0)
    return MetricCheck("imbalance", found, log_e, alpha, sentence, needed=0 if look.units else 1)


def _counted(metric: str, test: Test, counts: Counts, did: str, *, required: bool) -> MetricCheck:
    """Return the check of events among units."""
    log_e = test.log_e(counts)
    sentence = (
        f"{verdicts.of(counts.canary.sum(), counts.canary_units.sum())} canary units {did}, "
        f"{verdicts.of(counts.stable.sum(), counts.stable_units.sum())} stable ones"
    )
    return test.check(metric, counts, log_e, sentence, required=required)


def dense(look: PooledCells, counts: Counts) -> bool:
    """Return whether enough units have a value for the metric to be waited for."""
    values = counts.canary_units.sum() + counts.stable_units.sum()
    return bool(values and values >= REQUIRED_SHARE * look.units)


def _rated(look: PooledCells) -> Floats:
    """Return how many ratings canary and stable got, by weight."""
    found = Counter((score.weight, score.canary) for score in look.evidence.scores)
    return np.array([[found[cell.weight, True], found[cell.weight, False]] for cell in look.cells], float)
