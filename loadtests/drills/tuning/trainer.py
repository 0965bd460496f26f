"""A trainer in miniature, in place of `train.worker.task`, with the same command line: ROOT JOB KIND.

It keeps the whole protocol: a checkpoint after each step, a stop behind a step when it is asked, a result
that is decided once, a version, a name. What it "trains" is an adapter of random weights, another one in
each attempt, so that whatever is published twice can be seen.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from loadtests.adapters import write_ranked
from registry.storage import disk, files
from registry.store import Registry
from registry.tuning.jobs import TuningJob, TuningJobs
from registry.tuning.machine import JobEvent
from train.worker.outcome import TaskKind, TaskOutcome, write_outcome
from train.worker.process import die_with_parent
from train.worker.results import TrainedResult, keep_result, name_result, publish_result

STEPS = "WARDROBE_DRILL_STEPS"
STEP_SECONDS = "WARDROBE_DRILL_STEP_SECONDS"


def main() -> None:
    """Do the task that the command line names."""
    die_with_parent()
    stopping = threading.Event()
    signal.signal(signal.SIGTERM, lambda _number, _frame: stopping.set())
    registry = Registry.open(Path(sys.argv[1]))
    job = TuningJobs(registry.catalogue.root).find(sys.argv[2])
    write_outcome(job.folder, _outcome(job, registry, TaskKind(sys.argv[3]), stopping))


def _outcome(job: TuningJob, registry: Registry, kind: TaskKind, stopping: threading.Event) -> TaskOutcome:
    if kind is TaskKind.CHECK:
        return TaskOutcome(JobEvent.VALIDATED, "Files validated, moving job to queued state", {"rows": 10})
    trained = TrainedResult.find(job)
    if trained is None:
        stopped = _train(job, stopping)
        if stopped is not None:
            return TaskOutcome(JobEvent.RELEASED, f"stopped at step {stopped}")
        trained = _keep(job, registry)
    outcome = publish_result(job, registry, trained)
    name_result(job, registry, outcome)
    return outcome


def _train(job: TuningJob, stopping: threading.Event) -> int | None:
    """Make the steps that are left; return the step after which it was stopped, None at the end."""
    steps, seconds = int(os.environ.get(STEPS, "5")), float(os.environ.get(STEP_SECONDS, "0.1"))
    kept = disk.numbers(job.folder / "checkpoints")
    files.make_directory(job.folder / "checkpoints")
    for step in range((kept[-1] if kept else 0) + 1, steps + 1):
        stopping.wait(seconds)
        files.replace(job.folder / "checkpoints" / str(step), b"")
        line = f'{{"step": {step}, "loss": {1 / step}, "at": 0}}\n'
        files.append_lines(job.folder / "metrics.jsonl", line.encode())
        if stopping.is_set() and step < steps:
            return step
    return None


def _keep(job: TuningJob, registry: Registry) -> TrainedResult:
    work = job.folder / "work"
    files.remove_tree(work)
    files.make_directory(work)
    seed = int.from_bytes(os.urandom(4))
    adapter = write_ranked(work / "adapter", registry.base, seed, rank=1, modules=("q_proj",))
    facts: dict[str, Any] = {"lineage": {"job": job.id}, "tokens": 100, "hyperparameters": {}, "summary": {}}
    return keep_result(job, adapter, {}, facts)


if __name__ == "__main__":
    main()
