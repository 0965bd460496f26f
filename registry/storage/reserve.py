"""The reserve: written files kept ready, so that taking something away needs no room at all.

Owns the folder `reserve` in the root. Revoking a key, aborting a rollout, deleting a version and collecting
garbage each write one small file. `urgently` lets them do it on a disk without bytes or inodes, and beside
others who take whatever becomes free: a file of the reserve is overwritten in place, cut to its new length
and renamed to where it belongs. Invariants: a file has one user, whoever renamed it first; one that is half
written never bears a name that a reader looks at; only `urgently` uses the reserve; it is filled again as
soon as there is room.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

from registry.errors import DiskFull, StorageFailed
from registry.storage import anchor, disk, files
from registry.storage.placing import drawing, overwrite

NAME = "reserve"
FILES = 64
"""A change takes one or two; whoever is called at night revokes some dozens of keys at most."""
FILE_BYTES = 16 * 1024
"""A key or a tombstone has less than 1 KiB, a rollout's entry with its policy and baseline some."""

FOLDERS = ("aliases", "tombstones", "quarantine")
"""Of each adapter, made with its first version: a folder needs an inode and a block."""

_Answer = TypeVar("_Answer")


def fill(root: Path) -> bool:
    """Make the reserve of `root` whole if there is room; return whether it is."""
    folder = root / NAME
    try:
        if disk.exists(folder) and not disk.is_folder(folder):
            files.remove(folder)  # one file, as older versions of this program kept it
        files.make_directory(folder, mode=0o700)
        missing = sorted({str(number) for number in range(FILES)} - set(disk.names(folder)))
        for name in missing:
            # Bytes that no file system can leave out or compress away.
            files.replace(folder / name, os.urandom(FILE_BYTES), mode=files.SECRET_MODE, durable=False)
    except StorageFailed:
        return False
    return True


def make_folders(adapter: Path) -> None:
    """Make the folders of an adapter that taking something away writes to, where there is room."""
    with contextlib.suppress(StorageFailed):  # tried again by the next housekeeping
        missing = [name for name in FOLDERS if not disk.is_folder(adapter / name)]
        for name in missing:
            files.make_directory(adapter / name, durable=False)
        if missing:
            with disk.explained(adapter):
                files.sync_directory(adapter)


def urgently(root: Path, change: Callable[[], _Answer]) -> _Answer:
    """Make a change that must work on a full disk: where it finds no room, it writes into the reserve.

    Raises: whatever `change` raises; DiskFull: when the reserve is used up too.
    """
    with drawing(partial(_draw, root / NAME)):
        try:
            return change()
        except DiskFull as error:
            if _names(root / NAME):
                raise
            fact = f"{error.fact}, and the reserve is used up"
            raise DiskFull(error.subject, fact, error.remedy) from error


def _draw(folder: Path, data: bytes, mode: int) -> Path | None:
    """Return a file of the reserve, under a hidden name, that holds `data` durably; None: none is left."""
    if len(data) > FILE_BYTES:
        return None
    anchor.check(folder)
    drawn = (overwrite(folder / name, data, mode, whole=FILE_BYTES) for name in _names(folder))
    try:
        return next((path for path in drawn if path is not None), None)
    except OSError:
        return None  # no rights, or overwriting takes room here: the change says that it found none


def _names(folder: Path) -> list[str]:
    try:
        return disk.names(folder)
    except StorageFailed:
        return []  # one that cannot be read is as good as none
