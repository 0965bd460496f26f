"""How a task of a worker ended, as the task's own process writes it: all that the worker reads of it.

Owns `jobs/<id>/outcome.json`. Invariant: it is written whole, as the last thing that a task does; a task that
left none was killed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from registry.errors import CorruptStore, Missing
from registry.storage import disk, files
from registry.storage.entry import Entry, encode
from registry.tuning.machine import JobEvent

if TYPE_CHECKING:
    from pydantic import JsonValue

FILE = "outcome.json"


class TaskKind(StrEnum):
    """What a worker has done in a process of its own: look at a job's files, or train."""

    CHECK = "check"
    TRAIN = "train"


@dataclass(frozen=True, slots=True)
class TaskOutcome:
    """The event that follows, a sentence for people, and the event's facts (`JobEntry`)."""

    event: JobEvent
    message: str
    facts: Mapping[str, JsonValue] = field(default_factory=dict)

    @classmethod
    def failed(cls, code: str, message: str, param: str | None = None) -> TaskOutcome:
        """Return a failure with OpenAI's three fields."""
        error: dict[str, JsonValue] = {"code": code, "message": message, "param": param}
        return cls(JobEvent.FAILED, message, {"error": error})


def write_outcome(folder: Path, outcome: TaskOutcome) -> None:
    """Say how the task ended; `folder` is the job's.

    Raises: StorageFailed.
    """
    fields = {"event": outcome.event.value, "message": outcome.message, "facts": dict(outcome.facts)}
    files.replace(folder / FILE, encode(fields))


def read_outcome(folder: Path) -> TaskOutcome | None:
    """Return how the task ended, None where it was killed.

    Raises: CorruptStore; StorageFailed.
    """
    if not disk.exists(folder / FILE):
        return None
    try:
        entry = Entry.read(folder / FILE)
        return TaskOutcome(JobEvent(entry.text("event")), entry.text("message"), entry.mapping("facts"))
    except Missing:
        return None
    except ValueError as error:
        raise CorruptStore(str(folder / FILE), f"holds {error}", "remove it") from error


def forget_outcome(folder: Path) -> None:
    """Remove what an earlier task left.

    Raises: StorageFailed.
    """
    files.remove(folder / FILE)
