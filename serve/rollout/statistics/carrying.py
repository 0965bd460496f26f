"""How evidence of one weight is carried to the next: a mixture over the step at which harm began.

Each weight's counts begin at zero (the share under the null differs) and give a factor E_i. A canary that
is bad from the start is found soonest by the product of all factors; one that turns bad at step j by the
product from j on. Both are e-processes, and so is any mixture with weights fixed beforehand:
E = Σ_j π_j · Π_{i≥j} E_i, where products that have not begun count as 1 (shared/statistics.md 1.1).
"""

from __future__ import annotations

import numpy as np

from serve.rollout.statistics.share import FLOOR, Floats

FROM_START = 0.5
"""Weight of "from the start"; the other steps share the rest. Costs ln 2; measured in the README."""


def start_weights(starts: int) -> Floats:
    """Return π_1 … π_starts: `FROM_START`, and the rest in equal parts (all of it when there is one)."""
    if starts <= 1:
        return np.ones(1)
    return np.concatenate(([FROM_START], np.full(starts - 1, (1 - FROM_START) / (starts - 1))))


def carry(log_factors: Floats, starts: int) -> Floats:
    """Return the log e-value of the factors along the first axis, in the order in which they arose.

    `starts` is the number of factors that the policy foresees; later ones begin no product of their own.
    """
    if not len(log_factors):
        return np.zeros(log_factors.shape[1:])
    weights = start_weights(starts)
    begun = min(len(log_factors), len(weights))
    products = np.cumsum(log_factors[::-1], axis=0)[::-1][:begun]
    spread = np.log(weights[:begun]).reshape(-1, *[1] * (log_factors.ndim - 1))
    total = np.logaddexp.reduce(products + spread, axis=0)
    waiting = weights[begun:].sum()
    if waiting > 0:
        total = np.logaddexp(total, np.log(waiting))
    return np.asarray(np.maximum(total, FLOOR))


def mix(log_values: Floats, weights: Floats) -> Floats:
    """Return the log of the weighted mean of e-values along the first axis (weights add up to 1)."""
    used = weights > 0
    spread = np.log(weights[used]).reshape(-1, *[1] * (log_values.ndim - 1))
    return np.asarray(np.logaddexp.reduce(log_values[used] + spread, axis=0))
