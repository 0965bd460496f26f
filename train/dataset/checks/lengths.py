"""Lengths of rows: quantiles, histograms, and the rows far outside.

Owns what counts as far: beyond three interquartile ranges of the logarithm, and eight times the median.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from train.dataset.checks.findings import FindingLedger
from train.dataset.columns import RowColumns

_LEAST_ROWS = 20
_FENCE = 3.0
_TIMES_MEDIAN = 8.0
_BINS = 40
_QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)


@dataclass(frozen=True, slots=True)
class Lengths:
    """One distribution; `counts[i]` rows lie between `edges[i]` and `edges[i + 1]` (logarithmic).

    `quantiles` are by their share: `0.05`.
    """

    unit: str
    total: int
    quantiles: dict[str, float]
    edges: tuple[float, ...]
    counts: tuple[int, ...]


def measure(values: NDArray[np.uint32], unit: str) -> Lengths | None:
    """Return the distribution of `values`, or None where there are none above 0."""
    if not values.size or not values.max():
        return None
    low, top = float(max(values.min(), 1)), float(values.max())
    edges = np.unique(np.round(np.geomspace(low, top + 1, _BINS + 1)))
    counts, _ = np.histogram(np.maximum(values, 1), bins=edges)
    found = np.quantile(values, _QUANTILES).tolist()
    quantiles = {f"{share:g}": value for share, value in zip(_QUANTILES, found, strict=True)}
    return Lengths(unit, int(values.sum()), quantiles, tuple(edges.tolist()), tuple(counts.tolist()))


def find_outliers(columns: RowColumns, ledger: FindingLedger) -> None:
    """Report rows that are far longer or shorter than the others."""
    in_tokens = len(columns) > 0 and columns["tokens"].any()
    unit = "tokens" if in_tokens else "characters"
    values = columns["tokens"] if in_tokens else _characters(columns)
    known = np.flatnonzero(values)
    if known.size < _LEAST_ROWS:
        return
    logs = np.log(values[known])
    low, median, high = np.quantile(logs, (0.25, 0.5, 0.75))
    fence, times = _FENCE * (high - low), np.log(_TIMES_MEDIAN)
    above = (logs > high + fence) & (logs > median + times)
    below = (logs < low - fence) & (logs < median - times)
    for row in known[above | below].tolist():
        fact = f"has {int(values[row])} {unit}, the median is {np.exp(median):.0f}"
        ledger.add("D-LENGTH", int(columns["place"][row]), fact)


def _characters(columns: RowColumns) -> NDArray[np.int64]:
    names = ("question_chars", "answer_chars", "rejected_chars")
    total: NDArray[np.int64] = sum(
        (columns[name].astype(np.int64) for name in names), np.zeros(len(columns), np.int64)
    )
    return total
