"""Whose failures are they: e-values for the canary's share of all failures of both arms.

When the canary fails at most `margin` times as often as stable, each new failure is the canary's with a
probability of at most `null_share`, whatever the base rate is and however it moves. So only failures are
counted, never a rate estimated. All functions take arrays (or numbers) of counts and broadcast; they are
the same ones for one look of a server and for 10,000 simulated rollouts.

Invariant: for counts that arise under the null hypothesis, E[exp(log e)] ≤ 1 at any stopping time.
Derivation: `derivations.md` 3.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaincc, betaln

FULL = 10_000
CONCENTRATIONS = np.array([2.0, 20.0, 100.0])
"""Pseudo-counts of the priors that are mixed: few for gross harm, many for small harm."""

FLOOR = -700.0
"""Lowest log e-value given out: exp of it is still a number, and JSON knows no infinity."""

_SMALLEST = 1e-290

Floats = NDArray[np.float64]


def null_share(weight: ArrayLike, base_weight: ArrayLike = 0, margin: float = 1.0) -> Floats:
    """Return the canary's largest share of all failures while it fails at most `margin` times as often.

    `weight` and `base_weight` are basis points of units; 1 where no unit is left for stable.
    """
    canary = np.asarray(weight, dtype=float) * margin
    stable = FULL - np.asarray(weight, dtype=float) - np.asarray(base_weight, dtype=float)
    return np.asarray(canary / (canary + stable))


def log_harm_e(canary: ArrayLike, stable: ArrayLike, null: ArrayLike) -> Floats:
    """Return the log e-value against "the canary's share of the failures is at most `null`".

    Counts may be fractions (plans use expected counts). Where `null` is 0 or 1 nothing is tested: 0.
    """
    share, ours, theirs = _tested(canary, stable, null)
    return _log_mixture(ours, theirs, share)


def log_equivalence_e(canary: ArrayLike, stable: ArrayLike, null: ArrayLike) -> Floats:
    """Return the log e-value against "the canary's share of the failures is at least `null`".

    With the `null` of a margin of 2 this is the certificate that the canary fails less than twice as
    often as stable. It stays at 0 while nothing fails.
    """
    share, ours, theirs = _tested(canary, stable, null)
    return _log_mixture(theirs, ours, 1 - share)


def _tested(canary: ArrayLike, stable: ArrayLike, null: ArrayLike) -> tuple[Floats, Floats, Floats]:
    """Return share and counts, with nothing counted where nothing can be tested."""
    share = np.asarray(null, float)
    tested = (share > 0) & (share < 1)
    return np.where(tested, share, 0.5), np.where(tested, canary, 0.0), np.where(tested, stable, 0.0)


def _log_mixture(ours: Floats, theirs: Floats, share: Floats) -> Floats:
    """Return the log likelihood ratio of beta priors, cut off below `share`, against `share`."""
    at = share[..., None]
    first, second = CONCENTRATIONS * at, CONCENTRATIONS * (1 - at)
    before = betaln(first, second) + _log_tail(first, second, at)
    after = first + ours[..., None], second + theirs[..., None]
    parts = betaln(*after) + _log_tail(*after, at) - before
    mixed = np.logaddexp.reduce(parts, axis=-1) - np.log(CONCENTRATIONS.size)
    return np.asarray(np.maximum(mixed - ours * np.log(share) - theirs * np.log1p(-share), FLOOR))


def _log_tail(first: Floats, second: Floats, at: Floats) -> Floats:
    """Return the log probability that a Beta(first, second) is above `at`.

    Where it is too small for a number the series of the incomplete beta function is summed as a geometric
    one (its terms' ratio changes by 1/second from one to the next). Without this a canary that is much
    better than stable would be given an e-value of 0, and could never be caught later.
    """
    tail = np.asarray(betaincc(first, second, at))
    deep = tail < _SMALLEST
    if not deep.any():
        return np.asarray(np.log(tail))
    ratio = np.minimum((first + second) * (1 - at) / (second + 1), 1 - 1e-9)
    lead = first * np.log(at) + second * np.log1p(-at) - np.log(second) - betaln(first, second)
    return np.where(deep, lead - np.log1p(-ratio), np.log(np.where(deep, 1.0, tail)))
