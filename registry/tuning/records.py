"""What was asked of a fine-tuning job, and the entries of its log; how both stand on the disk.

Invariant: neither ever changes. Times are UNIX seconds.
"""

from __future__ import annotations

import secrets
import string
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from registry.errors import CorruptStore
from registry.storage.entry import Entry, encode, encode_claim
from registry.tuning.liveness import Owner
from registry.tuning.machine import JobEvent, JobState

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic import JsonValue

PREFIX = "ftjob-"
_LETTERS = string.ascii_letters + string.digits
_ID_LETTERS = 24
_REMEDY = "restore it from a backup"


def new_id() -> str:
    """Return an id that no job has."""
    return PREFIX + "".join(secrets.choice(_LETTERS) for _ in range(_ID_LETTERS))


def is_id(text: str) -> bool:
    """Tell whether `text` can be a job's id; one that is none is never a name on the disk."""
    rest = text.removeprefix(PREFIX)
    return text.startswith(PREFIX) and len(rest) == _ID_LETTERS and set(rest) <= set(_LETTERS)


@dataclass(frozen=True, slots=True)
class TuningRequest:
    """What was asked.

    `who` is the id of the key; `adapter` gets the new version; `model` is as the client spelled it, `start`
    the `NAME@N` that it means (None: the base). `method` is OpenAI's object with every default written out,
    `extras` what `x_wardrobe` held, `tuned_name` the `ft:` name that the result gets.
    """

    id: str
    created: int
    who: str
    adapter: str
    model: str
    base_model: str
    start: str | None
    training_file: str
    validation_file: str | None
    method: Mapping[str, JsonValue]
    seed: int
    tuned_name: str
    suffix: str | None = None
    metadata: Mapping[str, str] | None = None
    integrations: tuple[Mapping[str, JsonValue], ...] = ()
    extras: Mapping[str, JsonValue] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class JobEntry:
    """One entry of a job's log.

    `state` and `worker` (who has the job in hand, None: nobody) are what holds from now on. `message` is a
    sentence for people. `facts` by event: `claimed` has `owner` and `device`; `failed` `error` (`code`,
    `message`, `param`); `succeeded` `fine_tuned_model`, `version`, `digest`, `result_files`,
    `trained_tokens`, and `gate` where a goal was given.
    """

    seq: int
    at: float
    who: str
    event: JobEvent
    state: JobState
    worker: str | None
    message: str
    facts: Mapping[str, JsonValue]

    @property
    def owner(self) -> Owner | None:
        """Return the process that claimed the job in this entry."""
        return parse_owner(self.facts.get("owner"))


def parse_owner(found: object) -> Owner | None:
    """Return the process that a document names, None where it names none."""
    match found:
        case {"host": str(host), "pid": int(pid), "started": str(started)}:
            return Owner(host, pid, started)
    return None


def encode_request(request: TuningRequest) -> bytes:
    """Return the bytes of `request.json`."""
    plain = {one.name: _plain(getattr(request, one.name)) for one in fields(request)}
    return encode(plain)


def parse_request(entry: Entry) -> TuningRequest:
    """Read `request.json`.

    Raises: CorruptStore.
    """
    metadata = entry.fields.get("metadata")
    return TuningRequest(
        id=entry.text("id"),
        created=entry.integer("created"),
        who=entry.text("who"),
        adapter=entry.text("adapter"),
        model=entry.text("model"),
        base_model=entry.text("base_model"),
        start=entry.optional_text("start"),
        training_file=entry.text("training_file"),
        validation_file=entry.optional_text("validation_file"),
        method=entry.mapping("method"),
        seed=entry.integer("seed"),
        tuned_name=entry.text("tuned_name"),
        suffix=entry.optional_text("suffix"),
        metadata=None if metadata is None else _texts(entry, "metadata"),
        integrations=tuple(one.fields for one in entry.entries("integrations")),
        extras=entry.mapping("extras"),
    )


def encode_entry(entry: JobEntry) -> bytes:
    """Return the bytes of a log entry."""
    return encode_claim({one.name: _plain(getattr(entry, one.name)) for one in fields(entry)})


def read_entry(path: Path, seq: int) -> JobEntry:
    """Read entry `seq` of a log.

    Raises: Missing; CorruptStore; StorageFailed.
    """
    entry = Entry.read(path)
    try:
        event, state = JobEvent(entry.text("event")), JobState(entry.text("state"))
    except ValueError as error:
        raise CorruptStore(str(path), f"holds {error}", _REMEDY) from error
    if entry.integer("seq") != seq:
        raise CorruptStore(str(path), f"holds entry {entry.integer('seq')}", _REMEDY)
    return JobEntry(
        seq=seq,
        at=entry.number("at"),
        who=entry.text("who"),
        event=event,
        state=state,
        worker=entry.optional_text("worker"),
        message=entry.text("message"),
        facts=entry.mapping("facts"),
    )


def owner_facts(owner: Owner) -> dict[str, JsonValue]:
    """Return a process as a document."""
    return asdict(owner)


def _texts(entry: Entry, key: str) -> dict[str, str]:
    found = entry.mapping(key)
    if not all(isinstance(value, str) for value in found.values()):
        raise CorruptStore(str(entry.path), f"field {key} holds what is no text", _REMEDY)
    return {name: str(value) for name, value in found.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value
