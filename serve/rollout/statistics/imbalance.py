"""Units that are not where the hash should have put them: a sample-ratio mismatch.

Then nothing else can be believed, whatever it says; the answer is to hold and look for the fault.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import gammaln

from serve.rollout.statistics.share import FLOOR, Floats

CONCENTRATION = 100.0
"""Pseudo-counts of the prior around the expected shares (`derivations.md` 7)."""


def log_imbalance_e(counts: ArrayLike, shares: ArrayLike) -> Floats:
    """Return the log e-value against "units fall into arms with `shares`" (arms on the last axis).

    Arms whose share is 0 are left out.
    """
    seen, expected = np.broadcast_arrays(np.asarray(counts, float), np.asarray(shares, float))
    used = expected > 0
    prior = np.where(used, CONCENTRATION * expected, 1.0)
    seen = np.where(used, seen, 0.0)
    total = seen.sum(axis=-1)
    each = gammaln(prior + seen) - gammaln(prior) - seen * np.log(np.where(used, expected, 1.0))
    log_e = each.sum(axis=-1) + gammaln(CONCENTRATION) - gammaln(CONCENTRATION + total)
    return np.asarray(np.maximum(log_e, FLOOR))


def log_worst_e(each: Floats, tests: int) -> float:
    """Return the log e-value of several weights' tests, of which `tests` are foreseen.

    Not their product: a unit that comes back under the next weight has the bucket that it had, so its
    second count is no second piece of evidence. The greatest, divided by their number, is valid.
    """
    return float(each.max() - np.log(max(tests, each.size))) if each.size else 0.0
