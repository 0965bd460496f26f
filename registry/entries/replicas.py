"""Replicas: the heartbeats of the servers that share a root.

Owns `replicas/<replica>.json` and the judgement whether a replica is alive. Invariants: the judgement needs
no clock but the reader's own, apart from a first look; a name belongs to one server at a time: of two that
beat under it, the one that started later is refused.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from registry.errors import Conflict, CorruptStore, InvalidName, Missing, WardrobeError
from registry.names import check_replica_name
from registry.records import Heartbeat
from registry.spelling import spelled
from registry.storage import disk, files
from registry.storage.entry import Entry, encode
from registry.storage.root import Root

HEARTBEAT_SECONDS = 2.0
LIVE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class _Sighting:
    mark: tuple[int, int]
    changed_at: float


@dataclass(frozen=True, slots=True)
class _Beat:
    """A heartbeat of which a reader says how many seconds ago it changed; a broken one has no `beat`.

    One that is not `ours` has a name that no replica can have.
    """

    name: str
    beat: Heartbeat | None
    age: float
    problem: str = ""
    ours: bool = True


class Replicas:
    """The heartbeats in a root; remembers what it saw, so that a dead replica is told from a slow clock."""

    def __init__(self, root: Root, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._folder = root.path / "replicas"
        self._seen: dict[str, _Sighting] = {}

    def beat(self, heartbeat: Heartbeat) -> None:
        """Replace a replica's heartbeat; it is not fsynced, as it means nothing after a power cut.

        Raises: InvalidName; Conflict: another server that started earlier bears the name and lives;
        StorageFailed.
        """
        path = self._path(heartbeat.replica)
        self._refuse_other(path, heartbeat)
        fields = asdict(heartbeat)
        fields |= {name: list(fields[name]) for name in ("resident", "problems", "notes")}
        files.make_directory(self._folder)
        files.replace(path, encode(fields), durable=False)

    def read(self, now: float | None = None) -> list[tuple[Heartbeat, bool]]:
        """Return every replica's last heartbeat and whether it is alive: changed within 10 seconds.

        At the first look the file's time is compared with `now` (UNIX seconds, default the clock), later
        ones go by when this reader saw the file change. One that cannot be understood is left out.

        Raises: StorageFailed.
        """
        at = self._clock() if now is None else now
        return [(one.beat, one.age <= LIVE_SECONDS) for one in self._look(at) if one.beat is not None]

    def problems(self) -> dict[str, str]:
        """Return what is wrong with heartbeats that cannot be understood, by replica.

        Raises: StorageFailed.
        """
        return {spelled(one.name): one.problem for one in self._look(self._clock()) if one.beat is None}

    def within(self, seconds: float, now: float) -> list[Heartbeat]:
        """Return the heartbeats that changed within `seconds` before `now`.

        Raises: CorruptStore: one of them cannot be understood; StorageFailed.
        """
        # A file whose name no replica can have is nobody's heartbeat, whatever is in it.
        young = [one for one in self._look(now) if one.age <= seconds and one.ours]
        broken = next((one for one in young if one.beat is None), None)
        if broken is not None:
            remedy = f"remove it if no server is called {broken.name}"
            raise CorruptStore(str(self._path(broken.name)), broken.problem, remedy)
        return [one.beat for one in young if one.beat is not None]

    def outlived(self, seconds: float, now: float) -> list[Path]:
        """Return the heartbeats that did not change for `seconds` before `now`, broken ones too.

        Raises: StorageFailed.
        """
        return [self._folder / f"{one.name}.json" for one in self._look(now) if one.age > seconds]

    def changed(self, replica: str) -> float | None:
        """Return when a replica beat last, by its file's time (UNIX seconds), None where it never did.

        Raises: InvalidName; StorageFailed.
        """
        try:
            return disk.status(self._path(replica)).st_mtime
        except Missing:
            return None

    def remove(self, replica: str) -> None:
        """Forget a replica; one that is not there is no error."""
        files.remove(self._path(replica))

    def _refuse_other(self, path: Path, mine: Heartbeat) -> None:
        try:
            other, age = self._read_one(path, self._clock())
        except (Missing, CorruptStore):
            return
        theirs, ours = _server(other), _server(mine)
        if theirs == ours or age > LIVE_SECONDS or (other.started, theirs) > (mine.started, ours):
            return
        fact = f"is the name of another server that lives, at {other.url} (process {other.pid})"
        remedy = (
            f"give this one another name with --replica, or wait {LIVE_SECONDS:g} s if that one was killed"
        )
        raise Conflict(f"replica {mine.replica}", fact, remedy, param="replica")

    def _look(self, now: float) -> list[_Beat]:
        found = []
        for name in disk.names(self._folder):
            if name.endswith(".json"):
                path, replica = self._folder / name, name.removesuffix(".json")
                try:
                    check_replica_name(replica)
                    beat, age = self._read_one(path, now)
                    found.append(_Beat(replica, beat, age))
                except Missing:
                    continue  # removed between the listing and the reading
                except WardrobeError as error:
                    ours = not isinstance(error, InvalidName)
                    found.append(_Beat(replica, None, now - _changed_at(path), str(error), ours))
        return found

    def _read_one(self, path: Path, now: float) -> tuple[Heartbeat, float]:
        status = disk.status(path)
        entry = Entry.read(path)
        mark = (status.st_mtime_ns, status.st_ino)
        seen = self._seen.get(path.name)
        if seen is None:
            seen = _Sighting(mark, min(now, status.st_mtime))
        elif seen.mark != mark:
            seen = _Sighting(mark, now)
        self._seen[path.name] = seen
        return _parse(entry), now - seen.changed_at

    def _path(self, replica: str) -> Path:
        return self._folder / f"{check_replica_name(replica)}.json"


def _server(beat: Heartbeat) -> str:
    # One of an older release names no server: then a process is one.
    return beat.server or f"{beat.url} {beat.pid}"


def _changed_at(path: Path) -> float:
    try:
        return disk.status(path).st_mtime
    except Missing:
        return 0.0


def _parse(entry: Entry) -> Heartbeat:
    return Heartbeat(
        replica=entry.text("replica"),
        url=entry.text("url"),
        base_fingerprint=entry.text("base_fingerprint"),
        resident=entry.texts("resident"),
        capacity=entry.integer("capacity"),
        state=entry.text("state"),
        started=entry.number("started"),
        pid=entry.integer("pid"),
        server=entry.optional_text("server") or "",
        problems=entry.texts("problems") if "problems" in entry.fields else (),
        notes=entry.texts("notes") if "notes" in entry.fields else (),
    )
