"""The reserve: room that is given up first, so that taking something away works on a full disk.

Owns the file `reserve` in the root. Revoking a key, aborting a rollout, deleting a version and collecting
garbage each write a few hundred bytes; `urgently` gives up a slice of the reserve whenever there is no room
for them. Invariant: nothing else uses it; it is filled again as soon as there is room.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from registry import disk, files
from registry.errors import DiskFull, Missing, StorageFailed

NAME = "reserve"
SLICES = 4
SLICE_BYTES = 64 * 1024
"""A change takes at most five blocks of 4 KiB: a temporary file, an entry, a mark, two folders."""

_Answer = TypeVar("_Answer")


def fill(root: Path) -> bool:
    """Make the reserve of `root` whole if there is room; return whether it is."""
    path = root / NAME
    try:
        if disk.status(path).st_size >= SLICES * SLICE_BYTES:
            return True
    except Missing:
        pass
    except StorageFailed:
        return False
    try:
        # Bytes that no file system can leave out or compress away.
        files.replace(path, os.urandom(SLICES * SLICE_BYTES))
    except StorageFailed:
        return False
    return True


def urgently(root: Path, change: Callable[[], _Answer]) -> _Answer:
    """Make a change that must work on a full disk; it is begun again after each slice that is given up.

    Raises: whatever `change` raises; DiskFull: when the reserve is used up too.
    """
    while True:
        try:
            return change()
        except DiskFull:
            if not _give_up(root / NAME):
                raise


def _give_up(path: Path) -> bool:
    """Give up one slice; return False when none is left."""
    try:
        size = disk.status(path).st_size
        files.shorten(path, max(0, size - SLICE_BYTES))
    except StorageFailed:
        return False
    return True
