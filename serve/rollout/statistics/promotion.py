"""Good enough to become stable: a certificate, or a small difference, or (where allowed) no harm found.

The certificate shows that the canary fails less than `margin` times as often as stable; it needs failures
to compare. The bound shows that the canary's rate exceeds stable's by at most `bound`; it is reached also
when nothing ever fails. Both hold at any stopping time; rates are taken as constant within the last step.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaln, xlog1py, xlogy

from serve.rollout.statistics import verdicts
from serve.rollout.statistics.judgement import Certificate, MetricCheck, MetricVerdict
from serve.rollout.statistics.looks import Counts, PooledCells
from serve.rollout.statistics.planning import MOST_UNITS, first_enough
from serve.rollout.statistics.share import Floats, log_equivalence_e

PRIORS = ((0.5, 0.5), (0.5, 25.0))
"""Beta priors of a rate, mixed: for any rate, and for the few per cent and less that are usual."""

_HALVINGS = 30


def rate_limit(failures: ArrayLike, units: ArrayLike, alpha: float, side: ArrayLike) -> Floats:
    """Return the lower (`side` 0) or upper (1) limit of a rate; both hold at all times with 1 − `alpha`.

    The end of the rates whose likelihood the mixture of priors does not beat by the factor 1/`alpha`
    (Robbins' confidence sequence for a Bernoulli rate). Arrays broadcast; fractions are allowed.
    """
    failed, total, ends = np.broadcast_arrays(*(np.asarray(one, float) for one in (failures, units, side)))
    least = _log_marginal(failed, total) + np.log(alpha)
    return np.where(total > 0, _cross(failed, total - failed, least, ends), ends)


def difference_limit(
    canary: tuple[ArrayLike, ArrayLike], stable: tuple[ArrayLike, ArrayLike], alpha: float
) -> Floats:
    """Return the upper limit of the canary's rate minus stable's, with 1 − `alpha` at all times.

    Each arm is (failures, units) and takes half of `alpha`.
    """
    failures = np.stack(np.broadcast_arrays(canary[0], stable[0]))
    units = np.stack(np.broadcast_arrays(canary[1], stable[1]))
    side = np.reshape([1.0, 0.0], (2, *[1] * (failures.ndim - 1)))
    upper, lower = rate_limit(failures, units, alpha / 2, side)
    return np.asarray(upper - lower)


def certify(look: PooledCells, checks: tuple[MetricCheck, ...]) -> Certificate:
    """Return whether the last step may promote by now, how, and what is missing.

    The certificate and the bound come first: they say more than that no harm was found.
    """
    proofs = Proofs(look, look.counts(lambda arm: arm.failures, lambda arm: arm.units))
    if proofs.log_e() >= proofs.threshold:
        return Certificate(reached=True, how="certificate", sentence=proofs.certificate_sentence(), needed=0)
    if proofs.bound_reached(np.zeros(1))[0]:
        return Certificate(reached=True, how="bound", sentence=proofs.bound_sentence(), needed=0)
    wanted = look.policy.promotion.no_harm_units
    calm = not any(one.verdict in {MetricVerdict.FAIL, MetricVerdict.SUSPICIOUS} for one in checks)
    if wanted is not None and calm and look.canary_units >= wanted:
        sentence = f"no harm was found in {look.canary_units:,} canary units; that is not proof of equality"
        return Certificate(reached=True, how="no_harm", sentence=sentence, needed=0)
    needed = proofs.needed()
    if wanted is not None:
        needed = min(needed, max(1, wanted - look.canary_units))
    missing = f"{proofs.certificate_sentence()}; {proofs.bound_sentence()}{verdicts.more(needed)}"
    return Certificate(reached=False, how="", sentence=missing, needed=needed)


@dataclass(frozen=True, slots=True)
class Proofs:
    """The certificate and the bound of one look.

    The certificate uses all weights, each with its own control. The bound compares rates, so it uses the
    newest weight alone: over weights the arms' shares differ, and a drift of the traffic with them.
    """

    look: PooledCells
    counts: Counts

    @property
    def threshold(self) -> float:
        """Return the log e-value that certifies."""
        return -math.log(self.look.policy.promotion.alpha)

    def log_e(self) -> float:
        """Return the log e-value against "at least `margin` times stable's failures"."""
        return float(self._factors().sum())

    def limit(self, extra: Floats) -> Floats:
        """Return the upper limit of the difference of rates, expected after `extra` canary units more."""
        rate, stable_extra = self._pooled_rate(), extra * self.look.stable_per_canary()
        canary = self.counts.canary[-1] + rate * extra, self.counts.canary_units[-1] + extra
        stable = self.counts.stable[-1] + rate * stable_extra, self.counts.stable_units[-1] + stable_extra
        return difference_limit(canary, stable, self.look.policy.promotion.alpha)

    def bound_reached(self, extra: Floats) -> NDArray[np.bool_]:
        """Say for each number of units more whether the bound is expected to be reached."""
        promotion = self.look.policy.promotion
        enough = self.look.canary_units + extra >= promotion.bound_units
        return np.asarray(enough & (self.limit(extra) <= promotion.bound))

    def certified(self, extra: Floats) -> NDArray[np.bool_]:
        """Say for each number of units more whether the certificate is expected of an equal canary."""
        rate, null = self._pooled_rate(), self._null()
        newest = log_equivalence_e(
            self.counts.canary[-1] + rate * extra,
            self.counts.stable[-1] + rate * extra * self.look.stable_per_canary(),
            null[-1],
        )
        return np.asarray(self._factors()[:-1].sum() + newest >= self.threshold)

    def needed(self) -> int:
        """Return how many canary units more the faster of the two wants, of a canary equal to stable."""
        ways = [first_enough(way) for way in (self.certified, self.bound_reached)]
        # What happened may stand against it by more than the plan expects: then at least one unit.
        return max(1, min(*ways, MOST_UNITS))

    def certificate_sentence(self) -> str:
        """Return what the certificate says, with its numbers."""
        promotion = self.look.policy.promotion
        shown = verdicts.e_value(self.log_e(), promotion.alpha)
        failed = verdicts.of(self.counts.canary.sum(), self.counts.canary_units.sum())
        theirs = verdicts.of(self.counts.stable.sum(), self.counts.stable_units.sum())
        return (
            f"that the canary fails less than {promotion.margin:g} times as often as stable: {shown} "
            f"({failed} canary units failed, {theirs} stable ones)"
        )

    def bound_sentence(self) -> str:
        """Return what the bound says, with its numbers."""
        promotion = self.look.policy.promotion
        limit = float(self.limit(np.zeros(1))[0])
        return (
            f"at {self.look.cells[-1].weight / 100:g} % the canary fails more often than stable by at most "
            f"{limit:.2%} (at all times, {1 - promotion.alpha:.0%}); {promotion.bound:.2%} after "
            f"{promotion.bound_units:,} canary units promotes"
        )

    def _null(self) -> Floats:
        return self.look.null(self.look.policy.promotion.margin)

    def _factors(self) -> Floats:
        return log_equivalence_e(self.counts.canary, self.counts.stable, self._null())

    def _pooled_rate(self) -> float:
        """Return the rate of failures of both arms together, never quite 0; 1 % before anything."""
        failures = self.counts.canary.sum() + self.counts.stable.sum()
        return float(
            (failures + 0.5) / (self.counts.canary_units.sum() + self.counts.stable_units.sum() + 50)
        )


def _log_marginal(failed: Floats, total: Floats) -> Floats:
    """Return the log probability of the data under the mixture of priors."""
    parts = [betaln(a + failed, b + total - failed) - betaln(a, b) for a, b in PRIORS]
    return np.asarray(np.logaddexp.reduce(parts, axis=0) - np.log(len(PRIORS)))


def _cross(failed: Floats, kept: Floats, least: Floats, ends: Floats) -> Floats:
    """Return where the log likelihood falls below `least` on the way to an end, a bit outside."""
    outside, inside = ends, failed / np.maximum(failed + kept, 1.0)
    for _ in range(_HALVINGS):
        middle = (outside + inside) / 2
        held = xlogy(failed, middle) + xlog1py(kept, -middle) > least
        inside, outside = np.where(held, middle, inside), np.where(held, outside, middle)
    return outside
