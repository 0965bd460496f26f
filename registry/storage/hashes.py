"""Hashes of files that were hashed before: a file that has not changed since is not read again.

Owns what counts as unchanged: device, inode, size, mtime and ctime are what they were. Nobody but the kernel
(or the server of a network file system) sets a ctime, and every write, rename over, chmod or set time moves
it. Invariants: what was written to while it was hashed, or so shortly before that a write after it might
carry the same time, is not remembered; the memory is bounded.

Not seen is what leaves the times alone: a disk that returns other bytes than were written, a writer with the
file mapped into its memory, a clock that was set back to the nanosecond. `wardrobe verify` reads everything.
On NFS the file is opened first, which has the client ask the server (unless it is mounted `nocto`).
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from registry.storage.disk import explained, open_plain

_Identity = tuple[int, int, int, int, int]
_MOST = 16_384  # some 5 MB; a version has three or four files
_SETTLED_SECONDS = 2.0
"""The coarsest tick of a file system that people mount (FAT); clocks of servers within it differ unseen."""


class Hashes:
    """The sizes and hex sha256 of files that this process has read; any number of threads may ask."""

    def __init__(self, most: int = _MOST, clock: Callable[[], float] = time.time) -> None:
        self._most, self._clock = most, clock
        self._known: dict[_Identity, str] = {}
        self._lock = threading.Lock()

    def of(self, path: Path, *, afresh: bool = False) -> tuple[int, str]:
        """Return the size and hex sha256 of a plain file, which is read when it is `afresh` or was changed.

        Raises: Missing; StorageFailed: also for a symlink.
        """
        with explained(path), open_plain(path) as file:
            before = _identity(os.fstat(file.fileno()))
            known = None if afresh else self._known.get(before)
            if known is not None:
                return before[2], known
            began = self._clock()
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            size, after = file.tell(), os.fstat(file.fileno())
        changed = max(after.st_mtime, after.st_ctime)
        if _identity(after) == before and size == before[2] and changed < began - _SETTLED_SECONDS:
            self._remember(before, sha256)
        return size, sha256

    def _remember(self, identity: _Identity, sha256: str) -> None:
        with self._lock:
            while len(self._known) >= self._most:
                del self._known[next(iter(self._known))]
            self._known[identity] = sha256


def _identity(state: os.stat_result) -> _Identity:
    return state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns, state.st_ctime_ns
