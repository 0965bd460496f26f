"""Replicas: the heartbeats of the servers that share a root.

Owns `replicas/<replica>.json` and the judgement whether a replica is alive. Invariant: the judgement needs
no clock but the reader's own, apart from a first look.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from registry import disk, files
from registry.entry import Entry, encode
from registry.names import check_replica_name
from registry.records import Heartbeat
from registry.root import Root

LIVE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class _Sighting:
    mark: tuple[int, int]
    changed_at: float


class Replicas:
    """The heartbeats in a root; remembers what it saw, so that a dead replica is told from a slow clock."""

    def __init__(self, root: Root, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._folder = root.path / "replicas"
        self._seen: dict[str, _Sighting] = {}

    def beat(self, heartbeat: Heartbeat) -> None:
        """Replace a replica's heartbeat; it is not fsynced, as it means nothing after a power cut.

        Raises: InvalidName; StorageFailed.
        """
        fields = asdict(heartbeat)
        data = encode({**fields, "resident": list(heartbeat.resident)})
        files.replace(self._path(heartbeat.replica), data, durable=False)

    def read(self, now: float | None = None) -> list[tuple[Heartbeat, bool]]:
        """Return every replica's last heartbeat and whether it is alive: changed within 10 seconds.

        At the first look the file's time is compared with `now` (UNIX seconds, default the clock), later
        ones go by when this reader saw the file change.

        Raises: CorruptStore; StorageFailed.
        """
        at = self._clock() if now is None else now
        return [(beat, age <= LIVE_SECONDS) for beat, age in self._aged(at)]

    def within(self, seconds: float, now: float) -> list[Heartbeat]:
        """Return the heartbeats that changed within `seconds` before `now`.

        Raises: CorruptStore; StorageFailed.
        """
        return [beat for beat, age in self._aged(now) if age <= seconds]

    def remove(self, replica: str) -> None:
        """Forget a replica; one that is not there is no error."""
        files.remove(self._path(replica))

    def _aged(self, now: float) -> list[tuple[Heartbeat, float]]:
        found = []
        for name in disk.names(self._folder):
            if name.endswith(".json"):
                try:
                    found.append(self._read_one(self._folder / name, now))
                except FileNotFoundError:
                    continue  # removed between the listing and the reading
        return found

    def _read_one(self, path: Path, now: float) -> tuple[Heartbeat, float]:
        status = path.stat()
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
    )
