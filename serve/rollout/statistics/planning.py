"""How much more must be seen: whether harm could have shown by now, and how many units are missing.

Harm is gross when `GROSS_RATE` of the canary's units fail, or `GROSS_FACTOR` times stable's rate if that is
more. The evidence is sufficient when a canary that bad would be expected to have been caught with the
units there are; so it becomes sufficient by units alone, also when nothing ever fails. Numbers of units
are finite: at most `MOST_UNITS`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from serve.rollout.statistics.share import Floats

GROSS_RATE = 0.2
GROSS_FACTOR = 5.0
MOST_UNITS = 1_000_000
_COARSE = np.concatenate(([0.0], np.unique(np.round(np.geomspace(1, MOST_UNITS, 28)))))
_FINE = 14


def gross_rate(stable: ArrayLike, margin: float = 1.0) -> Floats:
    """Return the rate that counts as gross harm beside stable's rate, at most 1."""
    factor = max(GROSS_FACTOR, 2 * margin)
    return np.asarray(np.minimum(np.maximum(GROSS_RATE, factor * np.asarray(stable, float)), 1.0))


def first_enough(enough: Callable[[Floats], NDArray[np.bool_]]) -> int:
    """Return the fewest canary units more for which `enough` is true; it is asked with arrays of units.

    0 when the present ones do, `MOST_UNITS` when none of up to that many would; to within 5 %.
    """
    found = np.flatnonzero(enough(_COARSE))
    if not found.size or found[0] == 0:
        return 0 if found.size else MOST_UNITS
    below, reached = _COARSE[found[0] - 1], _COARSE[found[0]]
    sizes = np.unique(np.ceil(np.linspace(below, reached, _FINE)[1:]))
    hits = np.flatnonzero(enough(sizes))
    return int(sizes[hits[0]] if hits.size else reached)
