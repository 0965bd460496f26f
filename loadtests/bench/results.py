"""Results of a benchmark: ratios of interleaved pairs with intervals, a JSON file and a Markdown table.

Machines are shared and noisy, so two things are compared by running them in turn, A B A B …, and taking
the ratio pair by pair: a drift of the machine hits both sides of a pair alike.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

FOLDER = Path("bench-results")
RESAMPLES = 10_000
SEED = 20_261_122


@dataclass(frozen=True, slots=True)
class MedianInterval:
    """A median with its 95 % bootstrap interval over `n` samples."""

    median: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.median:.3g} [{self.low:.3g}, {self.high:.3g}]"


@dataclass(frozen=True, slots=True)
class MeasuredFigure:
    """One measured figure: its value, the bar it is held against, and whether it was reached."""

    name: str
    value: MedianInterval
    unit: str
    bar: str
    reached: bool


def median_interval(samples: Sequence[float]) -> MedianInterval:
    """Return the median of `samples` and the 2.5 and 97.5 % quantiles of resampled medians."""
    values = np.asarray(samples, dtype=float)
    draws = np.random.default_rng(SEED).choice(values, size=(RESAMPLES, values.size))
    low, high = np.quantile(np.median(draws, axis=1), [0.025, 0.975])
    return MedianInterval(float(np.median(values)), float(low), float(high), int(values.size))


def pair_ratio(measured: Sequence[float], reference: Sequence[float]) -> MedianInterval:
    """Return the interval of measured / reference, pair by pair (both in the order they were run)."""
    pairs = zip(measured, reference, strict=True)
    return median_interval([own / other for own, other in pairs])


def at_most(name: str, value: MedianInterval, bar: float, unit: str) -> MeasuredFigure:
    """Return a figure that reaches its bar when the median is at most `bar`."""
    return MeasuredFigure(name, value, unit, f"≤ {bar:g}", value.median <= bar)


def at_least(name: str, value: MedianInterval, bar: float, unit: str = "ratio") -> MeasuredFigure:
    """Return a figure that reaches its bar when the median is at least `bar`."""
    return MeasuredFigure(name, value, unit, f"≥ {bar:g}", value.median >= bar)


def table(figures: Sequence[MeasuredFigure]) -> str:
    """Return the figures as a Markdown table."""
    head = "| what | median [95 % interval] | unit | n | bar | reached |\n|---|---|---|---|---|---|\n"
    rows = [
        f"| {f.name} | {f.value} | {f.unit} | {f.value.n} | {f.bar} | {'yes' if f.reached else 'NO'} |\n"
        for f in figures
    ]
    return head + "".join(rows)


def write_drill(name: str, report: Mapping[str, object]) -> int:
    """Write `bench-results/drill-NAME.json`, and return the exit code: 1 where the drill did not pass."""
    FOLDER.mkdir(exist_ok=True)
    target = FOLDER / f"drill-{name}.json"
    target.write_text(json.dumps(report, indent=2) + "\n")
    print(f"{'passed' if report['passed'] else 'FAILED'}; {target}", flush=True)
    return 0 if report["passed"] else 1


def publish(
    benchmark: str, figures: Sequence[MeasuredFigure], *, notes: Sequence[str] = (), summary: str = ""
) -> bool:
    """Write `bench-results/BENCHMARK.json` and `.md`, print the table, and return whether all bars held.

    `summary` is Markdown that stands above the table.
    """
    FOLDER.mkdir(exist_ok=True)
    machine = {"cpus": os.cpu_count(), "python": platform.python_version(), "machine": platform.machine()}
    document = {
        "benchmark": benchmark,
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": machine,
        "notes": list(notes),
        "figures": [asdict(figure) for figure in figures],
    }
    (FOLDER / f"{benchmark}.json").write_text(json.dumps(document, indent=2) + "\n")
    text = f"# {benchmark}\n\n{summary}{table(figures)}" + "".join(f"\n- {note}" for note in notes) + "\n"
    (FOLDER / f"{benchmark}.md").write_text(text)
    print(text, flush=True)
    return all(figure.reached for figure in figures)
