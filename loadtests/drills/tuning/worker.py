"""One worker of the drill, the real one with another trainer: its command line is ROOT DEVICE."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from registry.foreign import python
from registry.store import Registry
from registry.tuning.jobs import TuningJob
from train.worker.outcome import TaskKind
from train.worker.worker import TuningWorker, WorkerOptions


def main() -> None:
    """Work until a signal comes."""
    root = Registry.open(Path(sys.argv[1])).catalogue.root

    def program(job: TuningJob, kind: TaskKind) -> Sequence[str]:
        return python("-m", "loadtests.drills.tuning.trainer", str(root.path), job.id, kind.value)

    ending = threading.Event()
    signal.signal(signal.SIGTERM, lambda _number, _frame: ending.set())
    TuningWorker(root, WorkerOptions(sys.argv[2], program)).run(ending.is_set)


if __name__ == "__main__":
    main()
