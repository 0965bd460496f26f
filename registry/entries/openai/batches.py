"""Batches: a file of requests that a server answers by and by, and how far it has come.

Owns `batches/<id>/request.json` (what was asked), `log/<seq>.json` (what happened), `progress.json` (counts)
and the place of `answers/<seq>.jsonl`, one file for each claim, which its server alone writes. Invariants:
the entry with the highest seq is the present state; a server that lost its claim writes nothing that counts;
the state after an event is decided by `next_state`, again whenever somebody else was faster.
"""

from __future__ import annotations

import contextlib
import re
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from registry.entries.openai.batch_states import BatchEvent, BatchState, next_state
from registry.entries.openai.ids import ID_PATTERN, made_at, new_id
from registry.errors import ClaimLost, CorruptStore, Missing, NotFound
from registry.storage import disk, files
from registry.storage.entry import Entry, encode, encode_claim

if TYPE_CHECKING:
    from pydantic import JsonValue

DAY_SECONDS = 86_400
_FOLDER, _REQUEST, _LOG, _ANSWERS, _PROGRESS = "batches", "request.json", "log", "answers", "progress.json"
_PREFIX = "batch_"
_ID = re.compile(_PREFIX + ID_PATTERN)


@dataclass(frozen=True, slots=True)
class BatchRequest:
    """What was asked: `window_seconds` is the time for it, `output_lifetime` that of the files it gives."""

    id: str
    who: str
    endpoint: str
    input_file: str
    window: str
    window_seconds: int
    metadata: Mapping[str, str] | None
    output_lifetime: int | None

    @property
    def ends_at(self) -> int:
        """Return when what is not answered expires, in whole UNIX seconds."""
        return int(made_at(self.id)) + self.window_seconds


@dataclass(frozen=True, slots=True)
class BatchEntry:
    """One entry of the log; `holder` is the server that has the batch in hand from now on, None: nobody.

    `facts` by event: `started` has `total` and `model`; `failed` has `errors`; what ends a batch has `files`
    (`output`, `error`: the id of a file or None), `counts` and `usage`.
    """

    seq: int
    at: float
    who: str
    event: BatchEvent
    state: BatchState
    holder: str | None
    facts: Mapping[str, JsonValue]


@dataclass(frozen=True, slots=True)
class BatchProgress:
    """How many requests were answered well, and how many not."""

    completed: int = 0
    failed: int = 0


class Batch:
    """One batch; `request` never changes, the log grows."""

    def __init__(self, folder: Path, request: BatchRequest, clock: Callable[[], float]) -> None:
        self.request = request
        self._folder, self._clock = folder, clock
        self._entries: dict[int, BatchEntry] = {}

    @property
    def id(self) -> str:
        """Return its id."""
        return self.request.id

    @property
    def answers(self) -> Path:
        """Return the folder of the answers, a file for each claim."""
        return self._folder / _ANSWERS

    def log(self) -> list[BatchEntry]:
        """Return every entry, oldest first.

        Raises: NotFound: it was removed; CorruptStore; StorageFailed.
        """
        return [self._entry(seq) for seq in range(1, self.last().seq + 1)]

    def last(self) -> BatchEntry:
        """Return the entry that says where the batch stands now.

        Raises: NotFound: it was removed; CorruptStore; StorageFailed.
        """
        known = self._entries[max(self._entries)] if self._entries else None
        if known is not None and known.state.final:
            return known
        numbers = disk.entry_numbers(self._folder / _LOG)
        if not numbers:
            raise _unknown(self.id)
        return self._entry(numbers[-1])

    def append(
        self,
        event: BatchEvent,
        *,
        who: str,
        holder: str | None = None,
        facts: Mapping[str, JsonValue] | None = None,
        expected_seq: int | None = None,
    ) -> BatchEntry:
        """Append what happened, decided again when somebody else was faster.

        `holder` says it as the server that has the batch in hand, or takes it by `CLAIMED`; with
        `expected_seq` nothing is appended unless that is the last entry.

        Raises: Conflict: the event cannot follow; ClaimLost: another server has the batch, or another entry
        came first; StorageFailed.
        """
        made: BatchEntry | None = None

        def build(seq: int) -> bytes:
            nonlocal made
            last = self._entry(seq - 1)
            moved = expected_seq is not None and last.seq != expected_seq
            if moved or (holder is not None and event is not BatchEvent.CLAIMED and last.holder != holder):
                raise ClaimLost(
                    self.id, f"is in the hands of {last.holder}, entry {last.seq}", "leave it alone"
                )
            state = next_state(last.state, event, self.id)
            kept = None if state.final or event is BatchEvent.RELEASED else holder or last.holder
            made = BatchEntry(seq, self._clock(), who, event, state, kept, dict(facts or {}))
            return _encode(made)

        files.append_entry(self._folder / _LOG, build)
        assert made is not None
        self._entries[made.seq] = made
        return made

    def progress(self) -> BatchProgress:
        """Return how far it has come, as its server last said.

        Raises: StorageFailed.
        """
        try:
            entry = Entry.read(self._folder / _PROGRESS)
        except Missing:
            return BatchProgress()
        return BatchProgress(entry.integer("completed"), entry.integer("failed"))

    def tell(self, progress: BatchProgress) -> None:
        """Say how far it has come; not fsynced, as the answers themselves say it too.

        Raises: StorageFailed.
        """
        document = encode({"completed": progress.completed, "failed": progress.failed})
        files.replace(self._folder / _PROGRESS, document, durable=False)

    def _entry(self, seq: int) -> BatchEntry:
        found = self._entries.get(seq)
        if found is None:
            try:
                found = self._entries[seq] = _read(self._folder / _LOG / f"{seq}.json", seq)
            except Missing as error:
                raise _unknown(self.id) from error
        return found


class BatchStore:
    """The batches of one root; remembers what never changes, so that asking often is cheap."""

    def __init__(self, root: Path, clock: Callable[[], float] = time.time) -> None:
        self._root, self._clock = root, clock
        self._folder = root / _FOLDER
        self._known: dict[str, Batch] = {}
        self._ended: set[str] = set()

    def create(
        self,
        endpoint: str,
        input_file: str,
        *,
        who: str,
        window: str = "24h",
        window_seconds: int = DAY_SECONDS,
        metadata: Mapping[str, str] | None = None,
        output_lifetime: int | None = None,
    ) -> Batch:
        """Make a batch with its first entry, whole by one rename.

        Raises: StorageFailed.
        """
        name = new_id(_PREFIX, self._clock())
        request = BatchRequest(
            name, who, endpoint, input_file, window, window_seconds, metadata, output_lifetime
        )
        made = BatchEvent.CREATED
        first = BatchEntry(1, self._clock(), who, made, next_state(None, made), None, {})
        staged = self._root / "staging" / f"batch-{uuid.uuid4().hex}"
        try:
            files.make_directory(staged / _LOG)
            files.make_directory(staged / _ANSWERS)
            files.stage(staged / _LOG / "1.json", _encode(first))
            files.stage(staged / _REQUEST, _encode_request(request))
            files.make_directory(self._folder)
            files.move(staged, self._folder / name)
        finally:
            files.remove_tree(staged)
        return self.find(name)

    def find(self, batch_id: str) -> Batch:
        """Return a batch.

        Raises: NotFound; CorruptStore; StorageFailed.
        """
        found = self._open(batch_id) if _ID.fullmatch(batch_id) else None
        if found is None:
            raise _unknown(batch_id)
        return found

    def list(self, who: str | None = None) -> list[Batch]:
        """Return the batches of a key, or all, newest first; one that cannot be read is left out.

        Raises: StorageFailed.
        """
        found = []
        for name in reversed([name for name in disk.names(self._folder) if _ID.fullmatch(name)]):
            with contextlib.suppress(CorruptStore):
                batch = self._open(name)
                if batch is not None and who in {None, batch.request.who}:
                    found.append(batch)
        return found

    def unfinished(self) -> Sequence[tuple[Batch, BatchEntry]]:
        """Return the batches that have not ended, with their last entries, the oldest first.

        What has ended is looked at once, so it may be asked several times a second. One that cannot be read
        is left out. Raises: StorageFailed.
        """
        found = []
        for name in disk.names(self._folder):
            if name in self._ended or _ID.fullmatch(name) is None:
                continue
            with contextlib.suppress(CorruptStore, NotFound):
                batch = self.find(name)
                last = batch.last()
                if last.state.final:
                    self._ended.add(name)
                else:
                    found.append((batch, last))
        return found

    def outlived(self, before: float) -> Sequence[Path]:
        """Return the folders of batches that had ended by `before` (UNIX seconds).

        Raises: StorageFailed.
        """
        found = []
        for batch in self.list():
            with contextlib.suppress(CorruptStore, NotFound):  # what cannot be told stays
                last = batch.last()
                if last.state.final and last.at < before:
                    found.append(self._folder / batch.id)
        return found

    def _open(self, name: str) -> Batch | None:
        folder = self._folder / name
        known = self._known.get(name)
        if known is not None and disk.exists(folder / _REQUEST):
            return known
        self._known.pop(name, None)
        try:
            request = _read_request(name, Entry.read(folder / _REQUEST))
        except Missing:
            return None
        found = self._known[name] = Batch(folder, request, self._clock)
        return found


def _unknown(batch_id: str) -> NotFound:
    return NotFound("No batch found with id", f"'{batch_id[:100]}'.", param="batch_id")


def _encode(entry: BatchEntry) -> bytes:
    return encode_claim(
        {
            "seq": entry.seq,
            "at": entry.at,
            "who": entry.who,
            "event": entry.event,
            "state": entry.state,
            "holder": entry.holder,
            "facts": dict(entry.facts),
        }
    )


def _read(path: Path, seq: int) -> BatchEntry:
    entry = Entry.read(path)
    try:
        return BatchEntry(
            seq,
            entry.number("at"),
            entry.text("who"),
            BatchEvent(entry.text("event")),
            BatchState(entry.text("state")),
            entry.optional_text("holder"),
            entry.mapping("facts"),
        )
    except ValueError as error:
        raise CorruptStore(
            str(path), f"is no entry of a batch ({error})", "restore it from a backup"
        ) from error


def _encode_request(request: BatchRequest) -> bytes:
    return encode(
        {
            "id": request.id,
            "who": request.who,
            "endpoint": request.endpoint,
            "input_file": request.input_file,
            "window": request.window,
            "window_seconds": request.window_seconds,
            "metadata": None if request.metadata is None else dict(request.metadata),
            "output_lifetime": request.output_lifetime,
        }
    )


def _read_request(name: str, entry: Entry) -> BatchRequest:
    given = entry.fields.get("metadata")
    metadata = {key: str(value) for key, value in given.items()} if isinstance(given, dict) else None
    return BatchRequest(
        name,
        entry.text("who"),
        entry.text("endpoint"),
        entry.text("input_file"),
        entry.text("window"),
        entry.integer("window_seconds"),
        metadata,
        entry.optional_integer("output_lifetime"),
    )
