"""Krippendorff's alpha for nominal, ordinal and interval labels, with a bootstrap interval. Pure.

Source: Krippendorff (2011), "Computing Krippendorff's Alpha-Reliability". The ordinal difference between two
labels is the square of the difference of their mid-ranks, so ordinal and interval share one formula. The
interval resamples items, so it says how alpha would vary with other items of the same kind.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float64]
Places: TypeAlias = npt.NDArray[np.int64]

RESAMPLES = 1_000


class MeasurementLevel(StrEnum):
    """What a difference between two labels means: they are not the same, some ranks apart, a number apart."""

    NOMINAL = "nominal"
    ORDINAL = "ordinal"
    INTERVAL = "interval"


@dataclass(frozen=True, slots=True)
class Alpha:
    """Alpha with its 95 % interval; None where there is nothing to compare, or all labels are the same."""

    value: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True, slots=True)
class Table:
    """Labels of items that have two and more: `items` and `marks` by label given, `sizes` by item.

    `marks` are places in the labels' order; `values` are their numbers (interval), else their places.
    `within` is by how much the labels of each item differ, over all ordered pairs.
    """

    level: MeasurementLevel
    items: Places
    marks: Places
    sizes: Floats
    values: Floats
    within: Floats

    @classmethod
    def of(cls, units: Iterable[Sequence[str]], order: Sequence[str], level: MeasurementLevel) -> Table:
        """Make the table of `units`, the labels of each item; `order` holds every label once, in order."""
        paired = [unit for unit in units if len(unit) > 1]
        places = {label: place for place, label in enumerate(order)}
        items = np.repeat(np.arange(len(paired), dtype=np.int64), [len(unit) for unit in paired])
        marks = np.array([places[label] for unit in paired for label in unit], dtype=np.int64)
        numbers = (
            [float(label) for label in order] if level is MeasurementLevel.INTERVAL else range(len(order))
        )
        values = np.array(numbers, dtype=np.float64)
        # Alpha does not depend on the scale, and squares of large numbers would overflow.
        values /= np.max(np.abs(values), initial=0.0) or 1.0
        sizes = np.array([len(unit) for unit in paired], dtype=np.float64)
        within = (
            _unequal(items, sizes, marks, len(order))
            if level is MeasurementLevel.NOMINAL
            else _squared(items, sizes, values[marks])
        )
        return cls(level, items, marks, sizes, values, within)


def alpha(
    units: Iterable[Sequence[str]],
    order: Sequence[str],
    level: MeasurementLevel = MeasurementLevel.NOMINAL,
    seed: int = 0,
) -> Alpha:
    """Return the alpha of `units`, the labels of each item, with its interval."""
    table = Table.of(units, order, level)
    count = len(table.sizes)
    value = _alpha(table, np.ones(count)) if count else None
    if value is None or count < 2:
        return Alpha(value, None, None)
    draws = np.random.default_rng(seed)
    weights = (draws.multinomial(count, np.full(count, 1 / count)) for _ in range(RESAMPLES))
    found = [one for w in weights if (one := _alpha(table, w.astype(np.float64))) is not None]
    if len(found) < RESAMPLES / 2:  # nearly all labels are the same: most resamples say nothing
        return Alpha(value, None, None)
    low, high = np.quantile(found, [0.025, 0.975])
    return Alpha(value, float(low), float(high))


def point(
    units: Iterable[Sequence[str]], order: Sequence[str], level: MeasurementLevel = MeasurementLevel.NOMINAL
) -> float | None:
    """Return alpha alone."""
    table = Table.of(units, order, level)
    return _alpha(table, np.ones(len(table.sizes))) if len(table.sizes) else None


def labels_in_order(labels: Mapping[str, int], level: MeasurementLevel, order: Sequence[str]) -> list[str]:
    """Return every label once, in the order that `level` needs: as given, else by number.

    Raises: ValueError: `order` lacks a label, or a label is not a number where it must be one.
    """
    if order:
        missing = [label for label in labels if label not in order]
        if missing:
            raise ValueError(f"the label {missing[0]!r} is not in the order")
        if len(set(order)) < len(order):
            raise ValueError("a label stands twice in the order")
    if level is MeasurementLevel.NOMINAL or (order and level is MeasurementLevel.ORDINAL):
        return list(order) or sorted(labels)
    return sorted(labels, key=_number)


def _number(label: str) -> float:
    try:
        value = float(label)
    except ValueError:
        value = np.nan
    if not np.isfinite(value):
        raise ValueError(f"the label {label!r} is not a number")
    return value


def _alpha(table: Table, weights: Floats) -> float | None:
    """Return alpha where item u counts `weights[u]` times; None where all labels are the same."""
    counts = np.bincount(table.marks, weights[table.items], minlength=len(table.values))
    total = counts.sum()
    values, within = table.values, table.within
    if table.level is MeasurementLevel.ORDINAL:  # ranks depend on what was drawn
        values = np.cumsum(counts) - counts / 2
        within = _squared(table.items, table.sizes, values[table.marks])
    if table.level is MeasurementLevel.NOMINAL:
        between = float(total**2 - np.sum(counts**2))
    else:
        between = 2 * float(total * np.sum(counts * values**2) - np.sum(counts * values) ** 2)
    if np.count_nonzero(counts) < 2 or between <= 0:
        return None
    observed = float(np.sum(weights * within / (table.sizes - 1)))
    return float(1.0 - (total - 1) * observed / between)


def _squared(items: Places, sizes: Floats, given: Floats) -> Floats:
    """Return for each item the sum of the squared differences of all ordered pairs of its labels."""
    sums, squares = (np.bincount(items, given**power, len(sizes)) for power in (1, 2))
    return np.asarray(2 * (sizes * squares - sums**2), np.float64)


def _unequal(items: Places, sizes: Floats, marks: Places, kinds: int) -> Floats:
    """Return for each item the number of ordered pairs of its labels that are not equal."""
    found, counts = np.unique(items * kinds + marks, return_counts=True)
    equal = np.bincount(found // kinds, counts.astype(np.float64) ** 2, minlength=len(sizes))
    return np.asarray(sizes**2 - equal, np.float64)
