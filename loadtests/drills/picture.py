"""A picture of a run for the documentation, of the report's own plots.

python -m loadtests.drills.picture load-results/drill-bad-canary docs/pictures/load-test.svg
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

from loadtests.runner.records import FILE, read_records
from loadtests.runner.results.documents import Report
from loadtests.runner.results.pictures import pictures
from loadtests.runner.results.plots import HEIGHT, WIDTH
from loadtests.runner.results.tables import facts, verdict
from loadtests.runner.run import REPORT, ReservoirSample

_TITLES = ("Rollout", "First text", "Requests", "Whole answer")
_DOTS = 600
_GAP, _HEAD = 16, 64
_STYLE = """
text{font:11px system-ui,Helvetica,Arial,sans-serif;fill:#59636e}
text.title{font-weight:600;fill:#1b1f24;font-size:12px}
text.head{font-weight:600;fill:#1b1f24;font-size:17px}
text.verdict{fill:#1b1f24;font-size:13px}
.frame{fill:#fff;stroke:#d0d7de}.grid{stroke:#d0d7de;stroke-width:.6}
.mark{stroke:#a40e26;stroke-width:1;stroke-dasharray:3 3;opacity:.6}
.limit{stroke:#a40e26;stroke-width:.8}text.limit{stroke:none;fill:#a40e26}.warm{fill:#59636e;opacity:.14}
.c0{fill:#0072b2;stroke:#0072b2}.c1{fill:#d55e00;stroke:#d55e00}.c2{fill:#009e73;stroke:#009e73}
.c3{fill:#cc79a7;stroke:#cc79a7}.c4{fill:#56b4e9;stroke:#56b4e9}.c5{fill:#8c8c8c;stroke:#8c8c8c}
.line{fill:none;stroke-width:1.6}.area{stroke:none;opacity:.75}circle{stroke:none;opacity:.7}
"""


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
    plots = [one for one in pictures(report, sample.records()) if one]
    options.target.parent.mkdir(parents=True, exist_ok=True)
    options.target.write_text(picture(report, chosen(plots)), encoding="utf-8")
    return 0


def chosen(plots: Sequence[str]) -> list[str]:
    """Return the plots that a reader of the documentation looks at first."""
    found = (next((plot for plot in plots if f'label="{title}' in plot), None) for title in _TITLES)
    return [plot for plot in found if plot is not None]


def picture(report: Report, plots: Sequence[str]) -> str:
    """Return one SVG file: the run's name, its verdict, and the plots two by two."""
    return "".join(_parts(report, plots)) + "\n"


def _parts(report: Report, plots: Sequence[str]) -> Iterator[str]:
    width = 2 * WIDTH + 3 * _GAP
    height = _HEAD + (len(plots) + 1) // 2 * (HEIGHT + _GAP)
    name = escape(f"Load test: {report.scenario['name']}")
    yield f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" '
    yield f'aria-label="{name}"><style>{_STYLE}</style><rect width="100%" height="100%" fill="#fff"/>'
    yield f'<text class="head" x="{_GAP}" y="26">{name}</text>'
    told = f"{verdict(report)}. {report.overall.requests} requests, {report.overall.errors} errors. "
    told += ". ".join(text for key, text in facts(report) if key == "rollout")
    yield f'<text class="verdict" x="{_GAP}" y="48">{escape(told)}</text>'
    for place, plot in enumerate(plots):
        x, y = _GAP + place % 2 * (WIDTH + _GAP), _HEAD + place // 2 * (HEIGHT + _GAP)
        size = f'width="{WIDTH}" height="{HEIGHT}"'
        yield f'<rect class="frame" x="{x}" y="{y}" {size} rx="4"/>'
        yield re.sub("^<svg ", f'<svg x="{x}" y="{y}" {size} ', plot)
    yield "</svg>"


if __name__ == "__main__":
    sys.exit(main())
