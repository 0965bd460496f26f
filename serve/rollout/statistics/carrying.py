"""How evidence of one weight is carried to the next: a mixture over the step at which harm began.

Each weight's counts begin at zero (the share under the null differs) and give a factor E_i. A canary that
is bad from the start is found soonest by the product of all factors; one that turns bad at step j by the
product from j on. Both are e-processes, and so is any mixture with weights fixed beforehand:
E = Σ_j π_j · Π_{i≥j} E_i, where products that have not begun count as 1 (`derivations.md` 4).
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
    begins, later = log_terms(len(log_factors), starts)
    carried = np.full(log_factors.shape[1:], -np.inf)
    for place, factor in enumerate(log_factors):
        carried = np.logaddexp(carried, begins[place]) + factor
    return np.asarray(np.maximum(np.logaddexp(carried, later[-1]), FLOOR))


def log_terms(length: int, starts: int) -> tuple[Floats, Floats]:
    """Return for each of `length` factors the log weight of a product that begins there, and of later ones.

    With B the log of all products up to the factor before, the carried value after a factor F is
    logaddexp(logaddexp(B, begins) + F, later).
    """
    weights = np.zeros(max(length, 1))
    planned = start_weights(starts)
    weights[: planned.size] = planned[: weights.size]
    later = np.clip(1 - np.cumsum(weights), 0, None)
    later[later < 1e-12] = 0
    with np.errstate(divide="ignore"):
        return np.log(weights), np.log(later)


def mix(log_values: Floats, weights: Floats) -> Floats:
    """Return the log of the weighted mean of e-values along the first axis (weights add up to 1)."""
    used = weights > 0
    spread = np.log(weights[used]).reshape(-1, *[1] * (log_values.ndim - 1))
    return np.asarray(np.logaddexp.reduce(log_values[used] + spread, axis=0))
