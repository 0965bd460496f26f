"""Fine-tuning jobs on the disk: made whole by one rename, moved by entries that are appended.

Owns `jobs/<id>/request.json` and `jobs/<id>/log/<seq>.json`. Invariants: the entry with the highest seq is
the present state; an entry never changes; what follows is decided again whenever somebody else was faster;
of what a worker says nothing counts once another one has the job in hand (fencing).
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from registry.errors import ClaimLost, CorruptStore, Missing, NotFound, WardrobeError
from registry.storage import disk, files
from registry.storage.entry import Entry
from registry.storage.reserve import urgently
from registry.storage.root import Root
from registry.tuning.machine import JobEvent, JobState, needs_holder, next_holder, next_state
from registry.tuning.records import (
    JobEntry,
    TuningRequest,
    encode_entry,
    encode_request,
    is_id,
    parse_request,
    read_entry,
)

if TYPE_CHECKING:
    from pydantic import JsonValue

FOLDER, REQUEST, LOG = "jobs", "request.json", "log"
# What must be possible on a full disk, too.
_URGENT = frozenset({JobEvent.PAUSED, JobEvent.CANCELLED, JobEvent.FAILED, JobEvent.RELEASED})


class TuningJob:
    """One job; `request` never changes, the log grows."""

    def __init__(self, root: Root, request: TuningRequest, clock: Callable[[], float] = time.time) -> None:
        self._root, self._clock = root, clock
        self.request = request
        self.folder = root.path / FOLDER / request.id
        self._log = self.folder / LOG
        self._known: dict[int, JobEntry] = {}

    @property
    def id(self) -> str:
        """Return its id."""
        return self.request.id

    def log(self) -> list[JobEntry]:
        """Return every entry, oldest first.

        Raises: CorruptStore; StorageFailed.
        """
        last = self.last()
        return [self._entry(seq) for seq in range(1, last.seq)] + [last]

    def last(self) -> JobEntry:
        """Return the entry that says where the job is now.

        Raises: CorruptStore; StorageFailed.
        """
        known = self._known[max(self._known)] if self._known else None
        if known is not None and known.state.final:
            return known
        numbers = disk.entry_numbers(self._log)
        if not numbers:
            raise CorruptStore(str(self._log), "is empty", "restore it from a backup")
        return self._entry(numbers[-1])

    def append(
        self,
        event: JobEvent,
        *,
        who: str,
        worker: str | None = None,
        message: str = "",
        facts: Mapping[str, JsonValue] | None = None,
        expected_seq: int | None = None,
    ) -> JobEntry:
        """Append what happened, decided again by `next_state` when somebody else was faster.

        `worker` names the worker that says so: it must have the job in hand, unless it claims it. With
        `expected_seq` nothing is appended unless that is the last entry.

        Raises: JobRefused: the event cannot follow; ClaimLost: another worker has the job in hand, or
        another entry came first; CorruptStore; StorageFailed.
        """
        made: JobEntry | None = None

        def build(seq: int) -> bytes:
            nonlocal made
            last = self._entry(seq - 1)
            self._check(last, event, worker, expected_seq)
            made = JobEntry(
                seq=seq,
                at=self._clock(),
                who=who,
                event=event,
                state=next_state(last.state, event, f"job {self.id}"),
                worker=next_holder(last.worker, event, worker),
                message=message,
                facts=dict(facts or {}),
            )
            return encode_entry(made)

        def write() -> int:
            return files.append_entry(self._log, build)

        urgently(self._root.path, write) if event in _URGENT else write()
        assert made is not None
        self._known[made.seq] = made
        return made

    def claim_of(self, entry: JobEntry) -> JobEntry | None:
        """Return the entry by which `entry.worker` took the job in hand, None where nobody has it.

        Raises: CorruptStore; StorageFailed.
        """
        if entry.worker is None:
            return None
        for seq in range(entry.seq, 0, -1):
            found = self._entry(seq)
            if found.event is JobEvent.CLAIMED:
                return found
        return None

    def _check(self, last: JobEntry, event: JobEvent, worker: str | None, expected_seq: int | None) -> None:
        if expected_seq is not None and last.seq != expected_seq:
            fact = f"went on to entry {last.seq} ({last.event}), which {last.who} wrote"
            raise ClaimLost(f"job {self.id}", fact, "read it again")
        if event is not JobEvent.CLAIMED and last.state.final:
            return  # `next_state` says it better
        fenced = worker is not None or needs_holder(event)
        if event is not JobEvent.CLAIMED and fenced and last.worker != worker:
            holder = f"worker {last.worker}" if last.worker else "nobody"
            fact = f"is in the hands of {holder}, not of {worker or 'whoever asks'}"
            raise ClaimLost(f"job {self.id}", fact, "leave it alone")

    def _entry(self, seq: int) -> JobEntry:
        found = self._known.get(seq)
        if found is None:
            path = self._log / f"{seq}.json"
            try:
                found = read_entry(path, seq)
            except Missing as error:
                raise CorruptStore(str(path), "is missing", "restore it from a backup") from error
            self._known[seq] = found
        return found


class TuningJobs:
    """All fine-tuning jobs of a root; remembers what never changes, so asking often is cheap."""

    def __init__(self, root: Root, clock: Callable[[], float] = time.time) -> None:
        self._root, self._clock = root, clock
        self._folder = root.path / FOLDER
        self._known: dict[str, TuningJob] = {}
        self.problems: dict[str, str] = {}
        """What is wrong with jobs that `all` left out, by id."""

    def create(self, request: TuningRequest, *, message: str = "") -> TuningJob:
        """Make a job with its first entry, whole by one rename.

        Raises: Occupied: there is one of that id; StorageFailed.
        """
        if not is_id(request.id):
            raise ValueError(f"{request.id!r} is not a job's id")
        first = JobEntry(
            seq=1,
            at=self._clock(),
            who=request.who,
            event=JobEvent.CREATED,
            state=next_state(None, JobEvent.CREATED),
            worker=None,
            message=message or f"Created fine-tuning job: {request.id}",
            facts={},
        )
        staged = self._root.staging / str(uuid.uuid4())
        try:
            files.make_directory(staged / LOG)
            files.stage(staged / LOG / "1.json", encode_entry(first))
            files.stage(staged / REQUEST, encode_request(request))
            files.make_directory(self._folder)
            with disk.explained(staged):
                files.sync_directory(staged / LOG)
                files.sync_directory(staged)
            files.move(staged, self._folder / request.id)
        except BaseException:
            files.remove_tree(staged)
            raise
        return self.find(request.id)

    def find(self, id: str) -> TuningJob:  # noqa: A002  OpenAI's own word
        """Return the job of that id.

        Raises: NotFound; CorruptStore; StorageFailed.
        """
        job = self._open(id) if is_id(id) else None
        if job is None:
            raise NotFound(f"job {id}", "does not exist", "list them with `wardrobe train jobs`", param="job")
        return job

    def all(self) -> list[TuningJob]:
        """Return every job, the newest first; what is wrong with others is in `problems`.

        Raises: StorageFailed.
        """
        found = []
        problems = {}
        for name in disk.names(self._folder):
            try:
                job = self._open(name) if is_id(name) else None
                if job is not None:
                    job.last()
                    found.append(job)
            except WardrobeError as error:
                problems[name] = str(error)
        self.problems = problems
        return sorted(found, key=lambda job: (job.request.created, job.id), reverse=True)

    def in_state(self, *states: JobState) -> list[TuningJob]:
        """Return the jobs that are in one of `states`, the newest first.

        Raises: StorageFailed; CorruptStore.
        """
        return [job for job in self.all() if job.last().state in states]

    def _open(self, name: str) -> TuningJob | None:
        known = self._known.get(name)
        if known is not None and disk.exists(known.folder):
            return known
        self._known.pop(name, None)
        path = self._folder / name / REQUEST
        try:
            request = parse_request(Entry.read(path))
        except (Missing, disk.NotAFolder):
            return None  # a run of `train run`, or none at all
        if request.id != name:
            raise CorruptStore(str(path), f"holds job {request.id}", "restore it from a backup")
        self._known[name] = TuningJob(self._root, request, self._clock)
        return self._known[name]
