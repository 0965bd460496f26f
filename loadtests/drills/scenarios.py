"""The packaged scenarios on a real server of this machine: prepared, served, run, and summed up.

    python -m loadtests.drills.scenarios [--names bad-canary,swap-churn] [--set KEY=VALUE]

Adapters are random weights of the base's shapes, on a root of its own. Each run's folder goes to
`load-results/`, and a summary of all to `bench-results/drill-scenarios.json`; ends with 1 when one failed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from loadtests.live import Live, wardrobe
from loadtests.runner.documents import Report
from loadtests.runner.tables import facts, verdict

OPTIONS = ("--max-model-len", "1024", "--max-num-seqs", "16", "--max-loras", "4", "--max-cpu-loras", "8")
NAMES = ("bad-canary", "canary-ramp", "swap-churn", "more-adapters-than-slots")
RESULT = Path("bench-results/drill-scenarios.json")


def main() -> int:
    """Run the scenarios and return 1 when one failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--names", default=",".join(NAMES))
    parser.add_argument("--set", dest="changes", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--cache", type=Path, default=Path(os.environ.get("WARDROBE_CACHE", ".cache")))
    options = parser.parse_args()
    names = options.names.split(",")
    changes = [word for change in options.changes for word in ("--set", change)]
    with tempfile.TemporaryDirectory(prefix="wardrobe-drill-") as scratch:
        root = prepare(Path(scratch), options.cache, names)
        live = Live.start(root, Path(scratch) / "serve.log", *OPTIONS)
        try:
            live.wait_ready()
            found = {name: play(live, name, changes) for name in names}
        finally:
            live.stop()
    known = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps({**known, **found}, indent=2) + "\n")
    return 0 if all(one["passed"] for one in found.values()) else 1


def prepare(folder: Path, cache: Path, names: Sequence[str]) -> Path:
    """Make a root with the adapters of all scenarios and return it."""
    base, root = cache / "smollm2-135m-instruct", folder / "root"
    wardrobe(cache, "base", "demo", base)
    wardrobe(root, "init", "--base", base)
    for name in names:
        print(wardrobe(root, "loadtest", "prepare", name).stdout, end="", flush=True)
    return root


def play(live: Live, name: str, changes: Sequence[str]) -> dict[str, Any]:
    """Run one scenario and return its summary."""
    with tempfile.TemporaryDirectory(prefix=f"{name}-") as scratch:
        out = Path(scratch) / "run"
        done = wardrobe(live.root, "loadtest", "run", name, "--out", out, *changes, check=False)
        print(done.stdout, done.stderr, flush=True)
        report = Report.model_validate_json((out / "report.json").read_text())
        kept = Path("load-results") / f"drill-{name}.html"
        kept.parent.mkdir(exist_ok=True)
        kept.write_text((out / "report.html").read_text())
    return {
        "passed": report.passed,
        "verdict": verdict(report),
        "facts": dict(facts(report)),
        "checks": [one.sentence for one in report.checks],
        "latency_ms": {
            metric: spread.model_dump()
            for metric, spread in report.overall.distributions.items()
            if spread is not None and metric.endswith("_ms")
        },
        "rollouts": [one.model_dump() for one in report.rollouts],
        "events": len(report.events),
        "failed_events": [one.error for one in report.events if one.error],
    }


if __name__ == "__main__":
    sys.exit(main())
