"""The drill of the workers.

    python -P -m loadtests.drills.tuning [--jobs 50] [--workers 4]

Two keys ask for many small jobs at once; workers train them and are killed at random moments. Then it is
counted: jobs lost, published twice, stuck after a death, and the longest waits of the two keys. The report
goes to `bench-results/drill-tuning.json`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
import time
from pathlib import Path

from loadtests.bench.results import write_drill
from loadtests.drills.tuning.figures import LARGEST_RATIO, LONGEST_STUCK_SECONDS, TuningFigures, measure
from loadtests.drills.tuning.killing import WorkerCrew
from registry.records import BaseModelInfo, Limits
from registry.storage.root import Root
from registry.store import Registry
from registry.tuning.jobs import TuningJobs
from registry.tuning.records import TuningRequest, new_id

KEYS = ("alice", "bob")
_MODULES = {f"model.layers.{n}.self_attn.q_proj": (16, 16) for n in range(2)}


def main() -> None:
    """Run the drill and say what came of it; the exit code is 1 where a bar was missed."""
    parser = argparse.ArgumentParser(description="Kill workers that train many small jobs.")
    parser.add_argument("--jobs", type=int, default=50)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--step-seconds", type=float, default=0.25)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="wardrobe-tuning-") as folder:
        figures = play(Path(folder), asked)
    report = dataclasses.asdict(figures)
    json.dump(report, sys.stdout, indent=2)
    bars = {"stuck_seconds": LONGEST_STUCK_SECONDS, "wait_ratio": LARGEST_RATIO}
    write_drill("tuning", {**report, "workers": asked.workers, "bars": bars, "passed": figures.passed})
    sys.exit(0 if figures.passed else 1)


def play(folder: Path, asked: argparse.Namespace) -> TuningFigures:
    """Make the root and the jobs, let the crew work, and return what was measured."""
    registry = make_root(folder / "root")
    jobs = TuningJobs(registry.catalogue.root)
    for number in range(asked.jobs):
        jobs.create(_request(registry, KEYS[number % len(KEYS)]))
    crew = WorkerCrew(
        registry.root, jobs, asked.workers, asked.steps, asked.step_seconds, (0.5, 2.5), asked.seed
    )
    began = time.monotonic()
    crew.begin()
    try:
        crew.work(deadline_seconds=60.0 + 10.0 * asked.jobs)
    finally:
        crew.end()
    return measure(registry, crew.kills, time.monotonic() - began)


def make_root(path: Path) -> Registry:
    """Make a root for a base that nobody loads."""
    base = BaseModelInfo("tiny", path.parent / "base", f"sha256:{'b' * 64}", None, _MODULES)
    return Registry(Root.init(path, base, Limits()))


def _request(registry: Registry, who: str) -> TuningRequest:
    job = new_id()
    return TuningRequest(
        id=job,
        created=int(time.time()),
        who=who,
        adapter=f"ft-{job[-12:].lower()}",
        model=registry.base.name,
        base_model=registry.base.name,
        start=None,
        training_file="file-none",
        validation_file=None,
        method={"type": "supervised", "supervised": {"hyperparameters": {}}},
        seed=0,
        tuned_name=f"ft:tiny:drill::{job[-12:]}",
    )


if __name__ == "__main__":
    main()
