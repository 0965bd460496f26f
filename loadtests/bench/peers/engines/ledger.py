"""What was measured on each arm, and the figures made of it: values, intervals, and ours over bare.

The arms run one after the other, so nothing is paired: the interval of a ratio draws from both sides'
samples independently. Pure, but for the random numbers, whose seed is fixed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from enum import Enum

import numpy as np
from numpy.typing import NDArray

from loadtests.bench.results import SEED, MeasuredFigure, MedianInterval

RESAMPLES = 2_000
BARE, TUNED, OURS = "bare", "tuned", "ours"
TITLES = {BARE: "bare vLLM", TUNED: "vLLM tuned by hand", OURS: "ours"}

Floats = NDArray[np.float64]


class Statistic(Enum):
    """What a row makes of its samples."""

    MEDIAN = "median"
    P99 = "p99"
    LARGEST = "largest"
    TOTAL = "total"

    def of(self, draws: Floats) -> Floats:
        """Return the statistic along the last axis."""
        if self is Statistic.TOTAL:
            return np.asarray(draws.sum(axis=-1))
        if self is Statistic.LARGEST:
            return np.asarray(draws.max(axis=-1))
        return np.asarray(np.quantile(draws, 0.99 if self is Statistic.P99 else 0.5, axis=-1))


_TAILS = frozenset({Statistic.P99, Statistic.LARGEST})


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """One line: `floor` is the least that ours / bare may be; ours itself is `least` to `ceiling`."""

    name: str
    unit: str
    statistic: Statistic = Statistic.MEDIAN
    floor: float | None = None
    ceiling: float | None = None
    least: float | None = None


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


def figures(arms: Mapping[str, SampleLedger]) -> list[MeasuredFigure]:
    """Return for every row what each arm measured, and ours over each of the others."""
    found: list[MeasuredFigure] = []
    for row in _rows(arms):
        ends = {name: arm.samples[row] for name, arm in arms.items() if row in arm.samples}
        found += [_value(row, name, samples) for name, samples in ends.items()]
        found += [
            _ratio(row, name, ends[OURS], samples)
            for name, samples in ends.items()
            if name != OURS and OURS in ends and comparable(row, samples)
        ]
    return found


def comparable(row: LedgerRow, other: Sequence[float]) -> bool:
    """Return whether a ratio says anything: not of counts, nor of ratios, nor of nothing."""
    counted = row.statistic is Statistic.TOTAL or row.unit in {"status", "ratio"}
    return not counted and min(other) > 0


def side_by_side(arms: Mapping[str, SampleLedger]) -> str:
    """Return a Markdown table with all arms in one line, and both quantiles of a row in one cell.

    Rows of failures without any are left out; the last line says how many requests they were.
    """
    others = [name for name in arms if name != OURS]
    titles = [*(TITLES[name] for name in arms), *(f"ours / {name}" for name in others)]
    lines = [f"| what | unit | {' | '.join(titles)} |", "|---" * (len(titles) + 2) + "|"]
    rows = _rows(arms)
    quiet = [row for row in rows if all(_nothing(row, arm) for arm in arms.values())]
    for row in rows:
        if row in quiet or (row.statistic is Statistic.P99 and _twin(row, Statistic.MEDIAN) in rows):
            continue
        pair = [one for one in (row, _twin(row, Statistic.P99)) if one in rows or one is row]
        lines.append(_line(list(dict.fromkeys(pair)), arms))
    if quiet:
        counts = [f"0 of {sum(len(arm.samples.get(row, ())) for row in quiet)}" for arm in arms.values()]
        cells = ["failed of all other requests", "requests", *counts, *("–" for _ in others)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _rows(arms: Mapping[str, SampleLedger]) -> list[LedgerRow]:
    return list(dict.fromkeys(row for arm in arms.values() for row in arm.samples))


def _line(rows: Sequence[LedgerRow], arms: Mapping[str, SampleLedger]) -> str:
    unit = f"{rows[0].unit}, median / p99" if len(rows) > 1 else _unit(rows[0])
    cells = [" / ".join(_shown(row, arm.samples.get(row)) for row in rows) for arm in arms.values()]
    shares = [
        " / ".join(_share(row, arms[OURS], arm) for row in rows) for name, arm in arms.items() if name != OURS
    ]
    return f"| {' | '.join([rows[0].name, unit, *cells, *shares])} |"


def _share(row: LedgerRow, ours: SampleLedger, other: SampleLedger) -> str:
    over, under = ours.samples.get(row), other.samples.get(row)
    if not over or not under or not comparable(row, under):
        return "–"
    return f"{ratio(over, under, row.statistic).median:.2f}"


def _twin(row: LedgerRow, statistic: Statistic) -> LedgerRow:
    return replace(row, statistic=statistic)


def _nothing(row: LedgerRow, arm: SampleLedger) -> bool:
    return row.unit == "requests" and not sum(arm.samples.get(row, ()))


def _unit(row: LedgerRow) -> str:
    return f"{row.unit}, {row.statistic.value}" if row.statistic in _TAILS else row.unit


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
    if label == OURS and row.ceiling is not None:
        bar, reached = f"≤ {row.ceiling:g}", value.median <= row.ceiling
    if label == OURS and row.least is not None:
        bar, reached = f"≥ {row.least:g}", value.median >= row.least
    return MeasuredFigure(f"{row.name}, {label}", value, _unit(row), bar, reached)


def _ratio(row: LedgerRow, other: str, ours: Sequence[float], under: Sequence[float]) -> MeasuredFigure:
    value = ratio(ours, under, row.statistic)
    bar, reached = "–", True
    if row.floor is not None and other == BARE:
        bar, reached = f"≥ {row.floor:g}", value.median >= row.floor
    return MeasuredFigure(f"{row.name}, ours / {other}", value, "ratio", bar, reached)


def _draws(values: Floats, statistic: Statistic, seed: int) -> Floats:
    size = (RESAMPLES, values.size)
    return statistic.of(np.random.default_rng(seed).choice(values, size=size))
