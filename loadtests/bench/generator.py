"""What the load generator itself can send: ladders of rates against the mock, until it is late.

    python -m loadtests.bench.generator [--repeats 3] [--seconds 4]

A rate is sustained when requests leave within 50 ms of when they are due (p99), none is shed or fails, and
the server keeps up. Writes bench-results/generator.json and .md, and ends with 1 when a bar is missed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from loadtests.bench.mock import CHUNKS
from loadtests.bench.results import MeasuredFigure, at_least, median_interval, publish
from loadtests.bench.router import mock_server
from loadtests.runner.results.documents import Report
from loadtests.runner.run import make_plan, run
from loadtests.runner.scenario import Scenario
from loadtests.runner.target import ServerTarget

LADDERS = {
    "whole": (250, 500, 750, 1_000, 1_250, 1_500, 2_000, 2_500, 3_000),
    "streams": (25, 50, 75, 100, 125, 150, 200, 250, 300),
}
WHOLE_PER_SECOND = 500.0
STREAMS_PER_SECOND = 50.0


def main() -> int:
    """Measure, write, and return 0 when every bar was reached."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0)
    options = parser.parse_args()
    found: dict[str, list[float]] = {kind: [] for kind in LADDERS}
    notes: list[str] = []
    with mock_server() as ports:
        url = f"http://127.0.0.1:{ports['bare']}"
        for repeat in range(options.repeats):
            for kind, rates in LADDERS.items():
                best, lines = climb(url, kind, rates, options.seconds)
                found[kind].append(best)
                notes.append(f"{kind}, ladder {repeat + 1}: {'; '.join(lines)}")
    return 0 if publish("generator", figures(found), notes=notes) else 1


def figures(found: dict[str, list[float]]) -> list[MeasuredFigure]:
    """Return the sustained rates with their bars."""
    streams = median_interval(found["streams"])
    chunks = median_interval([rate * CHUNKS for rate in found["streams"]])
    return [
        at_least("whole answers", median_interval(found["whole"]), WHOLE_PER_SECOND, "requests/s"),
        at_least(f"streams of {CHUNKS} chunks", streams, STREAMS_PER_SECOND, "requests/s"),
        at_least("chunks in streams", chunks, STREAMS_PER_SECOND * CHUNKS, "chunks/s"),
    ]


def climb(url: str, kind: str, rates: Sequence[int], seconds: float) -> tuple[float, list[str]]:
    """Raise the rate until it is not sustained; return the last that was, and a line for each."""
    best, lines = 0.0, []
    for rate in rates:
        report = load(url, kind, rate, seconds)
        found = report.generator
        late = f"lag {found.lag_statistic} {found.lag_ms or 0.0:.1f} ms"
        lines.append(f"{rate}/s {late}, {found.peak_in_flight} in flight")
        if report.generator.saturated or report.overall.errors or report.keeping_up.kept_up is False:
            break
        best = float(rate)
    return best, lines


def load(url: str, kind: str, rate: int, seconds: float) -> Report:
    """Send Poisson arrivals of `rate` a second for `seconds`, and return the report."""
    scenario = Scenario.model_validate(
        {
            "name": "generator",
            "about": "The generator against the mock.",
            "warmup_seconds": 1,
            "duration_seconds": seconds,
            "arrival": {"process": "poisson", "rate": rate},
            "adapters": {"names": ["tiny"]},
            "stream_ratio": 1.0 if kind == "streams" else 0.0,
        }
    )
    with tempfile.TemporaryDirectory(prefix="wardrobe-generator-") as folder:
        return run(make_plan(scenario), ServerTarget(url), Path(folder)).report


if __name__ == "__main__":
    sys.exit(main())
