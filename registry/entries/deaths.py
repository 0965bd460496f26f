"""Engine deaths: what was in flight or loading whenever an engine died.

Owns `deaths/<seq>.json`, one append-only log for all replicas. Invariant: a death that its replica reports
again, after a restart for instance, counts once. Whether it was the version's fault is the server's
question.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from registry.errors import CorruptStore, Missing
from registry.names import check_replica_name
from registry.storage import disk, files
from registry.storage.entry import Entry, encode_claim
from registry.storage.root import Root


@dataclass(frozen=True, slots=True)
class Death:
    """An engine of `replica` died `at` (UNIX seconds), busy with the versions `names` (`support@3`)."""

    seq: int
    replica: str
    at: float
    names: tuple[str, ...]


class Deaths:
    """The engine deaths of a root."""

    def __init__(self, root: Root) -> None:
        self._folder = root.path / "deaths"

    def add(self, replica: str, at: float, names: Sequence[str]) -> bool:
        """Record a death; False when this one is recorded already.

        Raises: InvalidName; StorageFailed.
        """
        check_replica_name(replica)
        known = False

        def build(seq: int) -> bytes:
            nonlocal known
            known = any((death.replica, death.at) == (replica, at) for death in self.read())
            if known:
                raise _Known
            return encode_claim({"seq": seq, "replica": replica, "at": at, "names": [*sorted(set(names))]})

        try:
            files.append_entry(self._folder, build)
        except _Known:
            return False
        return True

    def read(self) -> Iterator[Death]:
        """Yield every death that can be read, oldest first.

        Raises: StorageFailed.
        """
        for seq in disk.entry_numbers(self._folder):
            try:
                entry = Entry.read(self.path(seq))
                found = Death(seq, entry.text("replica"), entry.number("at"), entry.texts("names"))
            except (Missing, CorruptStore):
                continue  # collected meanwhile; or one of several witnesses, without which the others count
            yield found

    def count(self, name: str, since: float = 0.0) -> int:
        """Return at how many deaths from `since` (UNIX seconds) on a version was in flight or loading."""
        return sum(name in death.names for death in self.read() if death.at >= since)

    def path(self, seq: int) -> Path:
        """Return where a death is recorded."""
        return self._folder / f"{seq}.json"


class _Known(Exception):
    pass
