"""What was measured on each arm, and the figures made of it: values, intervals, and ours over bare.

The arms run one after the other, so nothing is paired: the interval of a ratio draws from both sides'
samples independently. Pure, but for the random numbers, whose seed is fixed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from loadtests.bench.results import SEED, MeasuredFigure, MedianInterval

RESAMPLES = 2_000

Floats = NDArray[np.float64]


class Statistic(Enum):
    """What a row makes of its samples."""

    MEDIAN = "median"
    P99 = "p99"
    TOTAL = "total"

    def of(self, draws: Floats) -> Floats:
        """Return the statistic along the last axis."""
        if self is Statistic.TOTAL:
            return np.asarray(draws.sum(axis=-1))
        return np.asarray(np.quantile(draws, 0.99 if self is Statistic.P99 else 0.5, axis=-1))


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """One line: `floor` is the least that ours / bare may be, `ceiling` the most that ours may be."""

    name: str
    unit: str
    statistic: Statistic = Statistic.MEDIAN
    floor: float | None = None
    ceiling: float | None = None


@dataclass(slots=True)
class SampleLedger:
    """The samples of one arm by row, in the order in which the rows were first measured."""

    samples: dict[LedgerRow, list[float]] = field(default_factory=dict)

    def add(self, row: LedgerRow, values: Iterable[float]) -> None:
        """Add samples to a row; a row without any is left out."""
        found = list(values)
        if found:
            self.samples.setdefault(row, []).extend(found)

    def extend(self, more: SampleLedger) -> None:
        """Add all samples of another ledger."""
        for row, samples in more.samples.items():
            self.add(row, samples)

    def to_json(self) -> str:
        """Return everything as JSON that `from_json` reads."""
        rows = [
            {**asdict(row), "statistic": row.statistic.value, "samples": samples}
            for row, samples in self.samples.items()
        ]
        return json.dumps(rows, indent=1)

    @classmethod
    def from_json(cls, text: str) -> SampleLedger:
        """Read what `to_json` wrote."""
        ledger = cls()
        for entry in json.loads(text):
            samples = entry.pop("samples")
            ledger.add(LedgerRow(**{**entry, "statistic": Statistic(entry["statistic"])}), samples)
        return ledger


def interval(samples: Sequence[float], statistic: Statistic) -> MedianInterval:
    """Return a statistic with its 95 % bootstrap interval; a total is what it is."""
    values = np.asarray(samples, dtype=float)
    value = float(statistic.of(values))
    if statistic is Statistic.TOTAL:
        return MedianInterval(value, value, value, values.size)
    low, high = np.quantile(_draws(values, statistic, SEED), [0.025, 0.975])
    return MedianInterval(value, float(low), float(high), values.size)


def ratio(ours: Sequence[float], bare: Sequence[float], statistic: Statistic) -> MedianInterval:
    """Return ours / bare with its 95 % interval, both sides drawn anew."""
    over, under = np.asarray(ours, dtype=float), np.asarray(bare, dtype=float)
    value = float(statistic.of(over) / statistic.of(under))
    drawn = _draws(over, statistic, SEED) / _draws(under, statistic, SEED + 1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return MedianInterval(value, float(low), float(high), min(over.size, under.size))


def figures(bare: SampleLedger, ours: SampleLedger) -> list[MeasuredFigure]:
    """Return for every row what bare, ours and their ratio are."""
    found: list[MeasuredFigure] = []
    for row in dict.fromkeys([*bare.samples, *ours.samples]):
        ends = {"bare": bare.samples.get(row), "ours": ours.samples.get(row)}
        found += [_value(row, label, samples) for label, samples in ends.items() if samples]
        if ends["bare"] and ends["ours"] and comparable(row, ends["bare"]):
            found.append(_ratio(row, ends["ours"], ends["bare"]))
    return found


def comparable(row: LedgerRow, bare: Sequence[float]) -> bool:
    """Return whether a ratio says anything: not of counts, nor of nothing."""
    return row.statistic is not Statistic.TOTAL and row.unit != "status" and min(bare) > 0


def side_by_side(bare: SampleLedger, ours: SampleLedger) -> str:
    """Return a Markdown table with both arms in one line, and both quantiles of a row in one cell.

    Rows of failures without any are left out; the last line says how many requests they were.
    """
    lines = ["| what | unit | bare vLLM | ours | ours / bare |", "|---|---|---|---|---|"]
    rows = dict.fromkeys([*bare.samples, *ours.samples])
    quiet = [row for row in rows if _nothing(row, bare) and _nothing(row, ours)]
    for row in rows:
        if row in quiet or (row.statistic is Statistic.P99 and _twin(row, Statistic.MEDIAN) in rows):
            continue
        pair = [one for one in (row, _twin(row, Statistic.P99)) if one in rows or one is row]
        lines.append(_line(list(dict.fromkeys(pair)), bare, ours))
    counts = [sum(len(arm.samples.get(row, ())) for row in quiet) for arm in (bare, ours)]
    if quiet:
        lines.append(f"| failed of all other requests | requests | 0 of {counts[0]} | 0 of {counts[1]} | – |")
    return "\n".join(lines) + "\n"


def _line(rows: Sequence[LedgerRow], bare: SampleLedger, ours: SampleLedger) -> str:
    shares = []
    for row in rows:
        under, over = bare.samples.get(row), ours.samples.get(row)
        both = under and over and comparable(row, under)
        shares.append(f"{ratio(over, under, row.statistic).median:.2f}" if both and over and under else "–")
    unit = f"{rows[0].unit}, median / p99" if len(rows) > 1 else _unit(rows[0])
    cells = [" / ".join(_shown(row, arm.samples.get(row)) for row in rows) for arm in (bare, ours)]
    return f"| {rows[0].name} | {unit} | {cells[0]} | {cells[1]} | {' / '.join(shares)} |"


def _twin(row: LedgerRow, statistic: Statistic) -> LedgerRow:
    return replace(row, statistic=statistic)


def _nothing(row: LedgerRow, arm: SampleLedger) -> bool:
    return row.unit == "requests" and not sum(arm.samples.get(row, ()))


def _unit(row: LedgerRow) -> str:
    return f"{row.unit}, p99" if row.statistic is Statistic.P99 else row.unit


def _shown(row: LedgerRow, samples: Sequence[float] | None) -> str:
    if not samples:
        return "–"
    value = interval(samples, row.statistic).median
    if row.statistic is Statistic.TOTAL:
        return f"{value:g} of {len(samples)}"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _value(row: LedgerRow, label: str, samples: Sequence[float]) -> MeasuredFigure:
    value = interval(samples, row.statistic)
    bar, reached = "–", True
    if label == "ours" and row.ceiling is not None:
        bar, reached = f"≤ {row.ceiling:g}", value.median <= row.ceiling
    return MeasuredFigure(f"{row.name}, {label}", value, _unit(row), bar, reached)


def _ratio(row: LedgerRow, ours: Sequence[float], bare: Sequence[float]) -> MeasuredFigure:
    value = ratio(ours, bare, row.statistic)
    bar, reached = "–", True
    if row.floor is not None:
        bar, reached = f"≥ {row.floor:g}", value.median >= row.floor
    return MeasuredFigure(f"{row.name}, ours / bare", value, "ratio", bar, reached)


def _draws(values: Floats, statistic: Statistic, seed: int) -> Floats:
    size = (RESAMPLES, values.size)
    return statistic.of(np.random.default_rng(seed).choice(values, size=size))
