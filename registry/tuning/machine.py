"""The states of a fine-tuning job, the events that move it, and who has it in hand: pure, no clock, no disk.

The names of the states are OpenAI's. `PAUSED` and `QUEUED` may still be in a worker's hand: it lets go within
a second or two, and only then, or when it is dead, may another claim the job.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

from registry.errors import JobRefused


class JobState(StrEnum):
    """Where a job is."""

    VALIDATING = "validating_files"
    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        """Tell whether nothing can follow."""
        return self in _FINAL


class JobEvent(StrEnum):
    """What happened to a job.

    `CLAIMED`: a worker took it in hand; `RELEASED`: it let go of it before the end.
    """

    CREATED = "created"
    VALIDATED = "validated"
    CLAIMED = "claimed"
    RELEASED = "released"
    PAUSED = "paused"
    RESUMED = "resumed"
    CANCELLED = "cancelled"
    SUCCEEDED = "succeeded"
    FAILED = "failed"


_FINAL = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED})
_ENDS = {JobEvent.CANCELLED: JobState.CANCELLED, JobEvent.FAILED: JobState.FAILED}
# What was trained is a result, also where somebody paused the job in that moment.
_DONE = {JobEvent.SUCCEEDED: JobState.SUCCEEDED, **_ENDS}
_NEXT: Mapping[JobState | None, Mapping[JobEvent, JobState]] = MappingProxyType(
    {
        None: {JobEvent.CREATED: JobState.VALIDATING},
        JobState.VALIDATING: {
            JobEvent.CLAIMED: JobState.VALIDATING,
            JobEvent.RELEASED: JobState.VALIDATING,
            JobEvent.VALIDATED: JobState.QUEUED,
            JobEvent.PAUSED: JobState.PAUSED,
            **_ENDS,
        },
        JobState.QUEUED: {
            JobEvent.CLAIMED: JobState.RUNNING,
            JobEvent.RELEASED: JobState.QUEUED,
            JobEvent.PAUSED: JobState.PAUSED,
            **_DONE,
        },
        JobState.RUNNING: {
            JobEvent.CLAIMED: JobState.RUNNING,
            JobEvent.RELEASED: JobState.QUEUED,
            JobEvent.PAUSED: JobState.PAUSED,
            **_DONE,
        },
        # What was not looked at before the pause is looked at by whoever trains it: there is one way on.
        JobState.PAUSED: {
            JobEvent.RELEASED: JobState.PAUSED,
            JobEvent.RESUMED: JobState.QUEUED,
            **_DONE,
        },
    }
)
_KEEPS_HOLDER = frozenset({JobEvent.PAUSED, JobEvent.RESUMED, JobEvent.CANCELLED})
_ONLY_HOLDERS = frozenset({JobEvent.RELEASED, JobEvent.VALIDATED, JobEvent.SUCCEEDED})


def next_state(state: JobState | None, event: JobEvent, job: str = "job") -> JobState:
    """Return the state after `event`; None is the state before the first.

    Raises: JobRefused: the event cannot follow; `job` is its subject.
    """
    found = _NEXT.get(state, {}).get(event)
    if found is None:
        can = ", ".join(sorted(_NEXT.get(state, {})))
        fact = f"{_standing(state)}, so it cannot be {event}"
        remedy = f"what can follow is {can}" if can else "nothing can follow"
        raise JobRefused(job, fact, remedy, param="fine_tuning_job_id")
    return found


def _standing(state: JobState | None) -> str:
    if state in {JobState.SUCCEEDED, JobState.FAILED}:
        return f"has {state}"
    return f"is {state or 'not made yet'}"


def next_holder(holder: str | None, event: JobEvent, worker: str | None) -> str | None:
    """Return which worker has the job in hand after `event`, None: nobody."""
    if event is JobEvent.CLAIMED:
        return worker
    return holder if event in _KEEPS_HOLDER else None


def needs_holder(event: JobEvent) -> bool:
    """Tell whether only the worker that has the job in hand may say so."""
    return event in _ONLY_HOLDERS
