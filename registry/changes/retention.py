"""Retention: what the servers write is kept for a time and up to a size, and removed after that.

Owns the limits of `feedback/`, `evidence/`, `baselines/`, `deaths/`, `replicas/`, `batches/`, `usage/` and
`logs/` (`[retention]` in wardrobe.toml); uploaded files, and uploads in parts, say themselves when they
expire. Removed at once, without the trash: it is there to make room. Invariants: the newest file of a log
stays, as its number says which comes next; evidence of an open rollout stays whatever its age.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from registry.entries.usage.book import fold, outlived_months
from registry.entries.usage.rows import day_of
from registry.errors import CorruptStore
from registry.spelling import spelled
from registry.storage import disk, files
from registry.views.catalogue import Catalogue

DAY_SECONDS = 86_400.0


@dataclass(frozen=True, slots=True)
class _File:
    """A file with its last change (UNIX seconds) and its size in bytes."""

    path: Path
    at: float
    size: int


def tidy(catalogue: Catalogue, now: float) -> list[str]:
    """Remove what is kept no longer, and return the paths within the root; books of usage are summed first.

    Raises: StorageFailed.
    """
    root = catalogue.root.path
    fold(root, day_of(now), days=catalogue.root.retention.usage_days)
    removed = []
    for path in outlived(catalogue, now):
        files.remove_tree(path)
        files.remove_empty(path.parent)
        removed.append(spelled(str(path.relative_to(root))))
    return removed


def outlived(catalogue: Catalogue, now: float) -> list[Path]:
    """Return what is kept no longer.

    Raises: StorageFailed.
    """
    root, limits = catalogue.root.path, catalogue.root.retention
    logs = limits.logs_days * DAY_SECONDS, limits.logs_bytes
    feedback = limits.feedback_days * DAY_SECONDS, limits.feedback_bytes
    replicas = limits.replicas_days * DAY_SECONDS
    gone = catalogue.replicas.outlived(replicas, now)
    return [
        *_beyond(_files(root / "feedback"), *feedback, now),
        *_beyond(_spare_newest(_files(root / "logs")), *logs, now),
        *_ended(catalogue, limits.evidence_days * DAY_SECONDS, now),
        *gone,
        *catalogue.files.outlived(now),
        *catalogue.uploads.outlived(now),
        *catalogue.batches.outlived(now - limits.batches_days * DAY_SECONDS),
        *outlived_months(root, day_of(now), months=limits.usage_months),
        *(one.path for one in _files(root / "baselines") if now - one.at > replicas),
    ]


def _ended(catalogue: Catalogue, seconds: float, now: float) -> Iterator[Path]:
    """Find the evidence of rollouts that ended long ago, and deaths of engines as old."""
    found = set(catalogue.evidence.rollouts())
    ended: set[str] = set()
    for adapter in catalogue.rollouts.names() if found else ():
        try:
            last = {entry.rollout: entry for entry in catalogue.rollouts.log(adapter)}
        except CorruptStore:
            continue  # whether it has ended cannot be told: its evidence stays
        ended |= {name for name, e in last.items() if not e.open and now - e.at >= seconds}
    yield from (catalogue.evidence.folder(name) for name in sorted(found & ended))
    for death in list(catalogue.deaths.read())[:-1]:
        if now - death.at >= seconds:
            yield catalogue.deaths.path(death.seq)


def _beyond(found: Iterable[_File], seconds: float, size: int, now: float) -> Iterator[Path]:
    """Yield what is too old, and the oldest of what is too much."""
    left = size
    for one in sorted(found, key=lambda one: one.at, reverse=True):
        left -= one.size
        if left < 0 or now - one.at > seconds:
            yield one.path


def _files(folder: Path) -> Iterator[_File]:
    for path, state in disk.walk(folder):
        if not stat.S_ISDIR(state.st_mode):
            yield _File(path, state.st_mtime, state.st_size)


def _spare_newest(found: Iterable[_File]) -> list[_File]:
    """Leave out the newest of each folder: somebody may be writing it."""
    every = list(found)
    newest: dict[Path, _File] = {}
    for one in every:
        known = newest.get(one.path.parent)
        if known is None or one.at > known.at:
            newest[one.path.parent] = one
    return [one for one in every if newest[one.path.parent] is not one]
