"""A disk without room, or a folder that vanished, in the words of an error.

Owns what is said of the temporary folder and of a result's folder. Nothing half-done is left: both are made
under names of their own, which are removed.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from registry.errors import Conflict, DiskFull, StorageFailed
from registry.storage.disk import NO_ROOM


@contextlib.contextmanager
def room(folder: Path | None = None) -> Iterator[None]:
    """Turn an `OSError` of the block into our own error about `folder`, and the temporary one.

    Raises: DiskFull; StorageFailed.
    """
    try:
        yield
    except OSError as error:
        temporary = tempfile.gettempdir()
        places = temporary if folder is None else f"{folder} or {temporary}"
        # numpy says a write that was cut short without a number: "1024 requested and 512 written".
        if error.errno in NO_ROOM or error.errno is None:
            remedy = "free space, or set TMPDIR to a folder that has some; nothing was written"
            raise DiskFull(places, f"has no room left ({error.strerror or error})", remedy) from error
        fact = f"the file system refused ({error.strerror or error})"
        raise StorageFailed(error.filename or places, fact, "check the disk; nothing was written") from error


@contextlib.contextmanager
def held(folder: Path, subject: str) -> Iterator[None]:
    """Hold `folder` for this process, so that another one does not write the same result.

    Raises: Conflict: another process holds it.
    """
    opened = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        if error.errno not in {errno.EAGAIN, errno.EWOULDBLOCK}:
            raise
        raise Conflict(
            subject, "is being written by another process", "wait for it, or name another file"
        ) from error
    finally:
        os.close(opened)
