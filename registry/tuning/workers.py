"""Workers: their heartbeats, and the judgement whether one is dead.

Owns `workers/<id>.json`. Invariants: on this machine the judgement is the process itself; of another machine
it goes by when this reader saw the heartbeat change, so a slow clock there kills nobody.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from registry.errors import CorruptStore, Missing
from registry.names import check_replica_name
from registry.storage import disk, files
from registry.storage.entry import Entry, encode
from registry.storage.root import Root
from registry.tuning.jobs import TuningJob
from registry.tuning.liveness import Owner, is_alive
from registry.tuning.machine import JobState
from registry.tuning.records import JobEntry, owner_facts, parse_owner

FOLDER = "workers"
BEAT_SECONDS = 2.0
SILENCE_SECONDS = 10.0
"""So long may a worker on another machine be silent before its job is taken over."""


@dataclass(frozen=True, slots=True)
class WorkerBeat:
    """What a worker says of itself; `job` is the one in its hands, `at` UNIX seconds."""

    id: str
    owner: Owner
    device: str
    job: str | None
    at: float


def new_worker_id() -> str:
    """Return an id that no worker has."""
    return f"worker-{secrets.token_hex(6)}"


class Workers:
    """The workers of a root, as this process sees them."""

    def __init__(self, root: Root, clock: Callable[[], float] = time.time) -> None:
        self._folder = root.path / FOLDER
        self._clock = clock
        self._seen: dict[str, tuple[tuple[int, int], float]] = {}

    def beat(self, beat: WorkerBeat) -> None:
        """Say that a worker lives; not fsynced, as it means nothing after a power cut.

        Raises: StorageFailed.
        """
        files.make_directory(self._folder)
        facts = {
            "id": beat.id,
            "owner": owner_facts(beat.owner),
            "device": beat.device,
            "job": beat.job,
            "at": beat.at,
        }
        files.replace(self._path(beat.id), encode(facts), durable=False)

    def all(self) -> list[WorkerBeat]:
        """Return what each worker said last; one that cannot be understood is left out.

        Raises: StorageFailed.
        """
        found = []
        for name in disk.names(self._folder):
            if name.endswith(".json"):
                try:
                    found.append(_parse(Entry.read(self._folder / name)))
                except (Missing, CorruptStore):
                    continue  # gone meanwhile, or nobody's
        return found

    def alive(self, worker: str, owner: Owner) -> bool:
        """Tell whether a worker lives; `owner` is the process that it is.

        Raises: StorageFailed.
        """
        return is_alive(owner, self._age(worker), SILENCE_SECONDS)

    def holds(self, job: TuningJob, entry: JobEntry) -> bool:
        """Tell whether a living worker has `job` in hand, as `entry`, its last one, says.

        Raises: CorruptStore; StorageFailed.
        """
        claim = job.claim_of(entry)
        if claim is None or entry.worker is None:
            return False
        return claim.owner is not None and self.alive(entry.worker, claim.owner)

    def claimable(self, job: TuningJob, *states: JobState) -> JobEntry | None:
        """Return the job's last entry where it is in one of `states` and no living worker has it in hand.

        Raises: CorruptStore; StorageFailed.
        """
        last = job.last()
        return last if last.state in states and not self.holds(job, last) else None

    def remove(self, worker: str) -> None:
        """Forget a worker; one that is not there is no error.

        Raises: StorageFailed.
        """
        files.remove(self._path(worker))

    def tidy(self) -> None:
        """Forget the workers that are dead for a day.

        Raises: StorageFailed.
        """
        for beat in self.all():
            if not self.alive(beat.id, beat.owner) and self._clock() - beat.at > _DAY_SECONDS:
                self.remove(beat.id)

    def _age(self, worker: str) -> float:
        """Return how many seconds ago this reader saw the heartbeat change."""
        try:
            status = disk.status(self._path(worker))
        except Missing:
            return float("inf")
        now, mark = self._clock(), (status.st_mtime_ns, status.st_ino)
        seen = self._seen.get(worker)
        if seen is None:
            # At the first look the file's own time is all there is.
            seen = (mark, min(now, status.st_mtime))
        elif seen[0] != mark:
            seen = (mark, now)
        self._seen[worker] = seen
        return now - seen[1]

    def _path(self, worker: str) -> Path:
        return self._folder / f"{check_replica_name(worker)}.json"


_DAY_SECONDS = 86_400.0


def _parse(entry: Entry) -> WorkerBeat:
    owner = parse_owner(entry.mapping("owner"))
    if owner is None:
        raise CorruptStore(str(entry.path), "names no process", "remove it if no worker is called so")
    return WorkerBeat(
        entry.text("id"), owner, entry.text("device"), entry.optional_text("job"), entry.number("at")
    )
