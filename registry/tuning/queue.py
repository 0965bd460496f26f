"""The queue of a root: which job a worker takes in hand next, light work apart from training.

Owns the way from the logs to `fairness.choose`. What an earlier worker began and could not end comes first.
"""

from __future__ import annotations

from registry.errors import WardrobeError
from registry.tuning.fairness import WaitingJob, choose
from registry.tuning.jobs import TuningJob, TuningJobs
from registry.tuning.machine import JobEvent, JobState
from registry.tuning.records import JobEntry
from registry.tuning.workers import Workers

Claimable = tuple[TuningJob, JobEntry]
"""A job with its last entry, which is the one that a claim must follow."""


class TuningQueue:
    """The waiting jobs of a root, as this process sees them."""

    def __init__(self, jobs: TuningJobs, workers: Workers) -> None:
        self._jobs, self._workers = jobs, workers

    def to_validate(self) -> Claimable | None:
        """Return the job that waited longest for its files to be looked at, None where none waits.

        Raises: StorageFailed.
        """
        for job in reversed(self._jobs.all()):
            if (found := self._free(job, JobState.VALIDATING)) is not None:
                return found
        return None

    def to_train(self) -> Claimable | None:
        """Return the job whose turn it is, None where none waits.

        Raises: StorageFailed.
        """
        every = list(reversed(self._jobs.all()))
        for job in every:
            if (left := self._free(job, JobState.RUNNING)) is not None:
                return left
        free = {job.id: found for job in every if (found := self._free(job, JobState.QUEUED)) is not None}
        waiting = [WaitingJob(job.id, job.request.who, job.request.created) for job, _ in free.values()]
        if not waiting:
            return None
        running = [job.request.who for job in every if job.last().state is JobState.RUNNING]
        chosen = choose(waiting, running, turns(every))
        return None if chosen is None else free[chosen]

    def _free(self, job: TuningJob, state: JobState) -> Claimable | None:
        try:
            last = self._workers.claimable(job, state)
        except WardrobeError:
            return None  # a damaged log is its own job's misfortune: `TuningJobs.problems` names it
        return None if last is None else (job, last)


def turns(jobs: list[TuningJob]) -> dict[str, float]:
    """Return when each key had its last turn: when the training of a job of it was first begun."""
    found: dict[str, float] = {}
    for job in jobs:
        began = began_training(job)
        if began is not None:
            who = job.request.who
            found[who] = max(found.get(who, began), began)
    return found


def began_training(job: TuningJob) -> float | None:
    """Return when the job's training was begun first (UNIX seconds), None where it was not."""
    for entry in job.log():
        if entry.event is JobEvent.CLAIMED and entry.state is JobState.RUNNING:
            return entry.at
    return None
