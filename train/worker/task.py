"""`python -m train.worker.task ROOT JOB KIND`: one task of a worker, in a process of its own.

Owns the way from a job to its outcome. Invariant: whatever happens, the last thing is `outcome.json`; a
process that leaves none was killed.
"""

from __future__ import annotations

import sys
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from registry.errors import WardrobeError
from registry.tuning.jobs import TuningJob, TuningJobs
from registry.tuning.machine import JobEvent
from train.process import environment
from train.process.interruption import Interruption
from train.process.priority import step_back_if_asked
from train.worker.outcome import TaskKind, TaskOutcome, write_outcome
from train.worker.process import die_with_parent

if TYPE_CHECKING:
    from registry.store import Registry

_PATIENCE_SECONDS = 30.0


def main() -> None:
    """Do the task that the command line names."""
    die_with_parent()
    step_back_if_asked()
    root, job_id, kind = Path(sys.argv[1]), sys.argv[2], TaskKind(sys.argv[3])
    if kind is TaskKind.TRAIN:
        environment.use_one_gpu()
        environment.replace_process()
    from registry.store import Registry

    registry = Registry.open(root)
    job = TuningJobs(registry.catalogue.root).find(job_id)
    with Interruption() as interruption:
        outcome = _outcome(job, registry, kind, interruption)
        interruption.hold()
        write_outcome(job.folder, outcome)


def _outcome(job: TuningJob, registry: Registry, kind: TaskKind, interruption: Interruption) -> TaskOutcome:
    from train.worker.checking import JobRefusal, check
    from train.worker.results import named_failure
    from train.worker.training import train_job

    try:
        if kind is TaskKind.CHECK:
            return check(job, registry)
        _await_other(job, registry)
        return train_job(job, registry, interruption)
    except JobRefusal as refusal:
        return refusal.outcome()
    except KeyboardInterrupt as stopped:
        return TaskOutcome(JobEvent.RELEASED, str(stopped) or "stopped before the first step")
    except WardrobeError as error:
        return TaskOutcome.failed(named_failure(error), str(error), error.param)
    except Exception as error:  # noqa: BLE001 - a fault of ours is the job's end, and told with its traceback
        traceback.print_exc()
        told = f"{type(error).__name__}: {error}"
        return TaskOutcome.failed("server_error", f"The job failed by a fault of the trainer ({told})")


def _await_other(job: TuningJob, registry: Registry) -> None:
    """Wait until the process that trained the job before is gone: the kernel kills it with its worker.

    Raises: WardrobeError: it is still there.
    """
    from train.jobs.records import RunState
    from train.jobs.store import Jobs

    before = Jobs(registry.root).known(job.id)
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while before is not None and before.status().state is RunState.RUNNING:
        if time.monotonic() > deadline:
            raise WardrobeError(f"job {job.id}", "is still trained by another process", "end that process")
        time.sleep(0.2)


if __name__ == "__main__":
    main()
