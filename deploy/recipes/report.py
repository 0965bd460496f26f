"""What a recipe found, as Markdown tables and a picture: figures only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.examples.scores import AccuracyScore
from registry.report.pictures import picture_of
from registry.report.plots import Curve, Plot


@dataclass(frozen=True, slots=True)
class AccuracyRow:
    """One row of the table of answers: who, on how many rows it learnt, and how right it was."""

    who: str
    rows: int | None
    value: float
    low: float
    high: float
    items: int
    f1: float | None = None

    @classmethod
    def of_arm(cls, who: str, rows: int | None, arm: Mapping[str, Any]) -> AccuracyRow:
        """Read an arm of an evaluation's `run.json`."""
        accuracy = arm["figures"]["accuracy"]["all"]
        f1 = arm["figures"]["macro_f1"]["all"]["value"]
        return cls(who, rows, accuracy["value"], accuracy["low"], accuracy["high"], accuracy["items"], f1)

    @classmethod
    def of_score(cls, who: str, rows: int, score: AccuracyScore) -> AccuracyRow:
        """Read a classical method's score."""
        return cls(who, rows, score.accuracy, *score.interval, score.asked)


def table(found: Sequence[AccuracyRow]) -> str:
    """Return the answers' table, in the order given."""
    head = "| who | trained on | accuracy | 95 % | macro-F1 |\n|---|---|---|---|---|\n"
    return head + "".join(
        f"| {one.who} | {'–' if one.rows is None else f'{one.rows:,} rows'} | {one.value:.3f} | "
        f"{one.low:.3f} – {one.high:.3f} | {'–' if one.f1 is None else f'{one.f1:.3f}'} |\n"
        for one in found
    )


def guard_table(suites: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> str:
    """Return each guard suite's first figure for each model; `suites` is by suite, then model."""
    models = list(next(iter(suites.values())))
    head = f"| suite | items | {' | '.join(models)} |\n|---|---|{'---|' * len(models)}\n"
    lines = []
    for suite, arms in suites.items():
        figures = [next(iter(arm["figures"].values()))["all"] for arm in arms.values()]
        shown = " | ".join(f"{one['value']:.3f} ({one['low']:.3f} – {one['high']:.3f})" for one in figures)
        lines.append(f"| {suite} | {figures[0]['items']} | {shown} |\n")
    return head + "".join(lines)


def write_curve(
    path: Path, title: str, adapter: Sequence[AccuracyRow], cheap: Sequence[AccuracyRow], base: AccuracyRow
) -> None:
    """Draw accuracy over training rows: the adapter, the cheap method, and the base as a level."""
    most = float(max(one.rows or 0 for one in adapter))
    curves = [
        _curve("adapter", adapter),
        _curve("logistic regression", cheap),
        Curve(base.who, [(0.0, base.value), (most, base.value)]),
    ]
    plot = Plot(title, curves, unit="accuracy over training rows", across=(0.0, most), up=(0.0, 1.0))
    path.write_text(picture_of(title, [plot]), encoding="utf-8")


def _curve(name: str, found: Sequence[AccuracyRow]) -> Curve:
    points = [(float(one.rows or 0), one.value) for one in found]
    return Curve(name, points, intervals=[(one.low, one.high) for one in found])
