"""Fine-tuning jobs for tests: requests that are whole, with whatever a test wants otherwise."""

from __future__ import annotations

from typing import Any

from registry.tuning.jobs import TuningJob, TuningJobs
from registry.tuning.liveness import Owner, this_process
from registry.tuning.machine import JobEvent
from registry.tuning.records import JobEntry, TuningRequest, new_id, owner_facts

DEAD = Owner(host="a machine that is gone", pid=1, started="1")


def tuning_request(**changes: Any) -> TuningRequest:
    """Return what a client might ask: supervised, everything by default."""
    id = changes.pop("id", None) or new_id()  # noqa: A001
    method = {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": "auto"}}}
    facts: dict[str, Any] = {
        "id": id, "created": 1_790_000_000, "who": "alice", "adapter": f"ft-{id[-8:].lower()}",
        "model": "tiny", "base_model": "tiny", "start": None, "training_file": "file-train",
        "validation_file": None, "method": method, "seed": 0,
        "tuned_name": f"ft:tiny:wardrobe::{id[-8:]}",
    }  # fmt: skip
    return TuningRequest(**(facts | changes))


def make_job(jobs: TuningJobs, **changes: Any) -> TuningJob:
    """Make a job that waits for its files to be looked at."""
    return jobs.create(tuning_request(**changes))


def claim(job: TuningJob, worker: str = "one", owner: Owner | None = None) -> JobEntry:
    """Take a job in hand, as a worker of this process unless `owner` is another."""
    facts: dict[str, Any] = {"owner": owner_facts(owner or this_process()), "device": "cpu"}
    return job.append(JobEvent.CLAIMED, who=worker, worker=worker, facts=facts)


def queued_job(jobs: TuningJobs, **changes: Any) -> TuningJob:
    """Make a job whose files were found to be good."""
    job = make_job(jobs, **changes)
    claim(job, "checker")
    job.append(JobEvent.VALIDATED, who="checker", worker="checker")
    return job
