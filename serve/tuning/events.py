"""The events and checkpoints of a job, as OpenAI's API tells them. Pure.

Owns their words, ids and order. They are computed from the job's log, the trainer's lines and the names of
its checkpoints, and stored nowhere. Invariants: an event has the same id whenever it is asked for; ids sort
by time, so that a list goes on where an event was taken back (a training that resumed from an earlier step).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from registry.entries.openai.ids import ID_PATTERN, derived_id, made_at
from registry.entries.openai.tuned import CHECKPOINT, TunedModel
from registry.tuning.machine import JobEvent
from registry.tuning.records import JobEntry
from serve.tuning.progress import JobProgress, StepLine, figures

EVENT_PREFIX = "ftevent-"
CHECKPOINT_PREFIX = "ftckpt_"
_ID = re.compile(EVENT_PREFIX + ID_PATTERN)


def is_event_id(text: str) -> bool:
    """Return whether `text` may be an event's id."""
    return _ID.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class _Event:
    """One event; of those of one moment the lower `rank` comes first."""

    at: float
    rank: int
    number: int
    message: str
    level: str = "info"
    data: dict[str, Any] | None = None

    @property
    def place(self) -> tuple[float, int, int]:
        """Return by what events are ordered."""
        return self.at, self.rank, self.number

    def id(self, job: str) -> str:
        """Return its id."""
        return derived_id(EVENT_PREFIX, self.at, job, str(self.rank), str(self.number))

    def document(self, job: str) -> dict[str, Any]:
        """Return it as OpenAI's API has it."""
        told: dict[str, Any] = {
            "object": "fine_tuning.job.event",
            "id": self.id(job),
            "created_at": int(self.at),
            "level": self.level,
            "message": self.message,
            "type": "message" if self.data is None else "metrics",
        }
        return told if self.data is None else {**told, "data": self.data}


@dataclass(frozen=True, slots=True)
class EventList:
    """Every event of a job, the newest first; ids are made for what is told alone."""

    job: str
    events: Sequence[_Event]

    @classmethod
    def of(
        cls, job: str, log: Sequence[JobEntry], progress: JobProgress, models: Iterable[TunedModel]
    ) -> EventList:
        """Return the events that a job's log, its trainer and its checkpoints tell of."""
        events = [*_of_log(log), *_of_steps(log, progress), *_of_checkpoints(models)]
        return cls(job, sorted(events, key=lambda one: one.place, reverse=True))

    def page(self, after: str | None, limit: int) -> tuple[list[dict[str, Any]], bool]:
        """Return up to `limit` events behind the one called `after`, and whether there are more.

        Behind one that was taken back the list goes on with what is older.
        """
        begin = 0 if after is None else self._behind(after)
        page = self.events[begin : begin + limit]
        return [one.document(self.job) for one in page], begin + limit < len(self.events)

    def _behind(self, after: str) -> int:
        moment = round(made_at(after) * 1000)
        for place, one in enumerate(self.events):
            at = round(one.at * 1000)
            if at < moment:
                return place
            if at == moment and one.id(self.job) == after:
                return place + 1
        return len(self.events)


def checkpoint_documents(
    job: str, progress: JobProgress, models: Iterable[TunedModel]
) -> list[dict[str, Any]]:
    """Return every checkpoint of a job that has a name, the newest first."""
    found = sorted(((step_of(one), one) for one in models), key=lambda pair: pair[0] or 0, reverse=True)
    return [
        {
            "id": derived_id(CHECKPOINT_PREFIX, model.created, job, str(step)),
            "object": "fine_tuning.job.checkpoint",
            "created_at": int(model.created),
            "fine_tuned_model_checkpoint": model.name,
            "fine_tuning_job_id": job,
            "step_number": step,
            "metrics": progress.at_step(step),
        }
        for step, model in found
        if step is not None
    ]


def step_of(model: TunedModel) -> int | None:
    """Return after how many steps a checkpoint was taken, None for a name that is no checkpoint's."""
    _, found, step = model.name.rpartition(CHECKPOINT)
    return int(step) if found and step.isdigit() else None


def _of_log(log: Sequence[JobEntry]) -> Iterable[_Event]:
    for entry in log:
        level = "error" if entry.event is JobEvent.FAILED else "info"
        yield _Event(entry.at, 0, entry.seq, entry.message or f"The job was {entry.event}", level)
        if entry.event is JobEvent.SUCCEEDED:
            yield _Event(entry.at, 1, entry.seq, "The job has successfully completed")


def _of_steps(log: Sequence[JobEntry], progress: JobProgress) -> Iterable[_Event]:
    # Lines of an earlier release have no time of their own: they count from when it last began.
    at = max((entry.at for entry in log if entry.event is JobEvent.CLAIMED), default=log[0].at)
    valid: float | None = None
    for line in progress.lines:
        at = line.at if line.at is not None else at + line.seconds
        if line.is_evaluation:
            valid = line.valid_loss
            continue
        yield _Event(
            at, 2, line.number, _words(line, progress.total_steps), data=_data(line, progress, valid)
        )


def _words(line: StepLine, total: int | None) -> str:
    of = f"/{total}" if total else ""
    held_out = "" if line.valid_loss is None else f", validation loss={line.valid_loss:.2f}"
    return f"Step {line.step}{of}: training loss={line.train_loss or 0:.2f}{held_out}"


def _data(line: StepLine, progress: JobProgress, valid: float | None) -> dict[str, Any]:
    told: dict[str, Any] = {"step": line.step, **figures(line)}
    if progress.total_steps:
        told["total_steps"] = progress.total_steps
    return told if valid is None else {"valid_loss": valid, **told}


def _of_checkpoints(models: Iterable[TunedModel]) -> Iterable[_Event]:
    for model in models:
        step = step_of(model)
        if step is not None:
            words = f"Checkpoint created at step {step} with Snapshot ID: {model.name}"
            yield _Event(model.created, 3, step, words)
