"""A file on its way to its name: written beside it under a hidden one, or taken from the reserve.

Owns temporary names, what root hands over, the announcement of steps, and where a file comes from when there
is no room for a new one. `registry.storage.files` decides what becomes of it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import uuid
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import TypeVar

from registry.storage.disk import NO_ROOM
from registry.storage.syncing import Unsynced

Draw = Callable[[bytes, int], Path | None]
"""Returns a file on the same disk that holds the bytes, durably, with this mode; None: it has none."""

_BLOCK_BYTES = 512  # the unit of st_blocks, whatever the file system's own block is
_Answer = TypeVar("_Answer")
_draw: ContextVar[Draw | None] = ContextVar("draw", default=None)
_on_step: ContextVar[Callable[[str], None] | None] = ContextVar("on_step", default=None)


@contextlib.contextmanager
def watch_steps(callback: Callable[[str], None]) -> Iterator[None]:
    """Call `callback(label)` before every mutating step of this thread, until the block ends."""
    token = _on_step.set(callback)
    try:
        yield
    finally:
        _on_step.reset(token)


@contextlib.contextmanager
def drawing(draw: Draw) -> Iterator[None]:
    """Let `replace` and `claim` of this thread take a file from `draw` where there is no room for one."""
    token = _draw.set(draw)
    try:
        yield
    finally:
        _draw.reset(token)


def step(label: str) -> None:
    """Announce the mutating step that comes next."""
    callback = _on_step.get()
    if callback is not None:
        callback(label)


def beside(path: Path) -> Path:
    """Return a hidden name in the same folder that nobody else has."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")


def place(
    path: Path,
    data: bytes,
    mode: int,
    put: Callable[[Path], _Answer],
    put_drawn: Callable[[Path], _Answer] | None = None,
    *,
    durable: bool = True,
) -> _Answer:
    """Write `data` under a hidden name and `put` it to `path`; without room, in a file from the reserve.

    `put_drawn` does the latter; None: the reserve is not for this change. Raises: OSError; what they raise.
    """
    temporary = beside(path)
    try:
        with removed_at_end(temporary):
            step(f"write temporary of {path.name}")
            write(temporary, data, mode, durable=durable)
            return put(temporary)
    except OSError as error:
        draw = _draw.get()
        if draw is None or put_drawn is None or error.errno not in NO_ROOM:
            raise
        drawn = draw(data, mode)
        if drawn is None:
            raise
    with removed_at_end(drawn):
        hand_over(drawn, path.parent)
        return put_drawn(drawn)


def write(
    path: Path, data: bytes, mode: int, *, durable: bool = True, unsynced: Unsynced | None = None
) -> None:
    """Write a new file and, if `durable`, fsync it or leave that to `unsynced`.

    Raises: OSError.
    """
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        hand_over(file.fileno(), path.parent)
        file.write(data)
        file.flush()
        if unsynced is not None:
            unsynced.add(file.fileno())
        elif durable:
            os.fsync(file.fileno())


def overwrite(path: Path, data: bytes, mode: int, *, whole: int) -> Path | None:
    """Put `data` in place of the `whole` bytes of a spare file, durably, and return its hidden name.

    None when somebody else took the file first, or when it is not whole: then it is removed. Raises: OSError.
    """
    taken = beside(path)
    try:
        step(f"take {path.name}")
        path.rename(taken)  # whoever does it first has it
    except FileNotFoundError:
        return None
    done = False
    try:
        done = _overwrite(taken, data, mode, whole)
    finally:
        if not done:
            with contextlib.suppress(OSError):
                taken.unlink()
    return taken if done else None


def rewrite(path: Path, data: bytes) -> None:
    """Put `data` in place of a file's content, durably, in the blocks that it has; touch its folder.

    Raises: OSError: ENOSPC where its blocks do not hold them.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW)
    try:
        if os.fstat(descriptor).st_blocks * _BLOCK_BYTES < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        step(f"overwrite {path.name}")
        os.pwrite(descriptor, data, 0)
        os.ftruncate(descriptor, len(data))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.utime(path.parent)


def hand_over(made: Path | int, folder: Path) -> None:
    """Give what root made to the owner of its folder: a server that runs as that user must read it."""
    if os.geteuid() == 0:
        owner = folder.stat()
        if owner.st_uid:
            os.chown(made, owner.st_uid, owner.st_gid)


@contextlib.contextmanager
def removed_at_end(path: Path) -> Iterator[None]:
    """Remove a hidden file at the end of the block, if it still has that name."""
    try:
        yield
    finally:
        with contextlib.suppress(FileNotFoundError):
            step(f"unlink {path.name.rpartition('.')[0]}")
            path.unlink()


def _overwrite(path: Path, data: bytes, mode: int, whole: int) -> bool:
    descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW)
    try:
        state = os.fstat(descriptor)
        # One with a hole, which a crash may leave, would have to find its blocks first.
        if state.st_size < whole or state.st_blocks * _BLOCK_BYTES < whole or state.st_nlink != 1:
            return False
        step(f"overwrite {path.name}")
        if os.pwrite(descriptor, data, 0) != len(data):
            return False
        os.ftruncate(descriptor, len(data))
        os.fchmod(descriptor, mode)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return True
