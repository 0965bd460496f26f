"""The difference between the arms of an evaluation: how much better the first is than each other one.

Owns which arms and slices are compared. The statistics are `comparison`'s; the figures are computed once,
and every reader (terminal, JSON, page) shows these.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from registry.api.documents import Document
from train.evaluation.formats.specs import LOWER_IS_BETTER, Spec
from train.evaluation.formats.suites import Suite
from train.evaluation.runner import ArmResult
from train.evaluation.statistics.comparison import compare
from train.evaluation.statistics.figures import slices


class DifferenceDocument(Document):
    """How much better `arm` is than `against` in one figure, on the items that both were judged on.

    `gain` and its 95 % limits are in the figure's unit, positive where `arm` is better, also where less is
    better. `p_value` is two-sided, of "no difference"; `changed` counts items whose score differs, `missing`
    those that were judged in one arm only.
    """

    figure: str
    slice: str
    arm: str
    against: str
    items: int
    missing: int
    mine: float
    other: float
    gain: float
    low: float
    high: float
    p_value: float
    changed: int
    test: str


def differences(suite: Suite, arms: Sequence[ArmResult]) -> Iterator[DifferenceDocument]:
    """Yield the first arm's difference to each other arm, by figure and slice, where both were judged."""
    for spec in suite.graders:
        for label, indices in slices(suite):
            for other in arms[1:]:
                found = _difference(spec, label, arms[0], other, indices)
                if found is not None:
                    yield found


def _difference(
    spec: Spec, label: str, first: ArmResult, other: ArmResult, indices: Sequence[int]
) -> DifferenceDocument | None:
    if spec.label not in first.grades or spec.label not in other.grades:
        return None  # a comparison by a judge is a figure of one arm
    mine, theirs = ([arm.grades[spec.label][index] for index in indices] for arm in (first, other))
    found = compare(spec, mine, theirs, margin=0.0, seed=0, lower=spec.type in LOWER_IS_BETTER)
    if found is None:
        return None
    return DifferenceDocument(
        figure=spec.label,
        slice=label,
        arm=first.label,
        against=other.label,
        items=found.items,
        missing=found.missing,
        mine=found.mine,
        other=found.other,
        gain=found.gain,
        low=found.low,
        high=found.high,
        p_value=min(1.0, 2 * min(found.p_above, found.p_below)),
        changed=found.changed,
        test=found.test,
    )
