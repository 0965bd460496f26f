"""A picture of a run for the documentation, of the report's own plots.

python -m loadtests.drills.picture load-results/drill-bad-canary docs/pictures/load-test.svg
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from loadtests.runner.records import FILE, read_records
from loadtests.runner.results.documents import Report
from loadtests.runner.results.pictures import plots
from loadtests.runner.results.tables import facts, verdict
from loadtests.runner.run import REPORT, ReservoirSample
from registry.report.pictures import picture_of

_TITLES = ("Rollout", "First text", "Requests", "Whole answer")
_DOTS = 600


def main() -> int:
    """Write the picture and return 0."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, help="the folder of a run")
    parser.add_argument("target", type=Path)
    options = parser.parse_args()
    report = Report.model_validate_json((options.run / REPORT).read_text("utf-8"))
    sample = ReservoirSample(_DOTS)
    for _ in sample.passing(read_records(options.run / FILE)):
        pass
    drawn = [one for one in plots(report, sample.records()) if one.drawn]
    first = [one for title in _TITLES for one in drawn if one.title.startswith(title)]
    name = f"Load test: {report.scenario['name']}"
    told = [
        f"{name}, {verdict(report)}",
        f"{report.overall.requests} requests, {report.overall.errors} errors",
    ]
    told += [text for key, text in facts(report) if key == "rollout"]
    options.target.parent.mkdir(parents=True, exist_ok=True)
    options.target.write_text(picture_of(name, first, columns=2, said=". ".join(told)), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
