"""Evidence, baselines and feedback: what each replica saw, in files of its own.

Owns `evidence/<rollout>/<replica>.json` and `baselines/<adapter>/<replica>.json` (each replaced as a whole)
and `feedback/<adapter>/<replica>/<day>.jsonl` (appended to). Invariants: a file has one writer, its replica;
what is in it is the server's business; no write here is a change of the adapter, so watchers sleep on.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from registry.entries.rollouts import check_rollout_id
from registry.errors import CorruptStore, Missing
from registry.names import check_adapter_name, check_replica_name
from registry.storage import disk, files
from registry.storage.root import Root


class EvidenceStore:
    """What the replicas of a root saw."""

    def __init__(self, root: Root, clock: Callable[[], float] = time.time) -> None:
        self._root = root.path
        self._clock = clock

    def put(self, rollout: str, replica: str, document: bytes) -> None:
        """Replace a replica's evidence of one rollout.

        Raises: InvalidName; StorageFailed: the old document is then still there.
        """
        _put(self._root / "evidence" / check_rollout_id(rollout), replica, document, durable=True)

    def read(self, rollout: str) -> dict[str, bytes]:
        """Return the evidence of one rollout by replica.

        Raises: InvalidName; StorageFailed.
        """
        return _read(self._root / "evidence" / check_rollout_id(rollout))

    def rollouts(self) -> list[str]:
        """Return the ids of the rollouts that have evidence, sorted."""
        return disk.names(self._root / "evidence")

    def folder(self, rollout: str) -> Path:
        """Return where a rollout's evidence lies."""
        return self._root / "evidence" / check_rollout_id(rollout)

    def put_baseline(self, adapter: str, replica: str, document: bytes) -> None:
        """Replace a replica's rolling histograms of an adapter; not fsynced, as they are rolling.

        Raises: InvalidName; StorageFailed.
        """
        _put(self._root / "baselines" / check_adapter_name(adapter), replica, document, durable=False)

    def baselines(self, adapter: str) -> dict[str, bytes]:
        """Return the rolling histograms of an adapter by replica.

        Raises: InvalidName; StorageFailed.
        """
        return _read(self._root / "baselines" / check_adapter_name(adapter))

    def append_feedback(self, adapter: str, replica: str, lines: bytes) -> None:
        """Append whole lines (JSON objects) to a replica's file of today (UTC).

        A line that a killed process left half is closed, so it spoils none but itself.

        Raises: InvalidName; StorageFailed.
        """
        day = time.strftime("%Y-%m-%d", time.gmtime(self._clock()))
        folder = self._root / "feedback" / check_adapter_name(adapter) / check_replica_name(replica)
        files.make_directory(folder)
        files.append_lines(folder / f"{day}.jsonl", lines)


def _put(folder: Path, replica: str, document: bytes, *, durable: bool) -> None:
    path = folder / f"{check_replica_name(replica)}.json"
    files.make_directory(folder)
    files.replace(path, document, durable=durable)


def _read(folder: Path) -> dict[str, bytes]:
    found = {}
    for name in disk.names(folder):
        if name.endswith(".json"):
            try:
                document = disk.read(folder / name)
            except Missing:
                continue  # collected between the listing and the reading
            except CorruptStore:
                document = b"?"  # whoever parses it names it, and goes on with the others
            if document:  # a power cut may leave an empty one
                found[name.removesuffix(".json")] = document
    return found
