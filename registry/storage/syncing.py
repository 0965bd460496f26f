"""What was written and is not durable yet, made durable together.

On a quick disk the first fsync's commit holds most of the others' work, so one after the other is quickest:
ext4 makes each of several threads wait for more to join. Where one takes long (network storage), all others
wait at once.
Invariant: after `sync` all that was added survives a power cut, or it raised; descriptors are the writers'
own, so that no error of writing back goes to somebody else.
"""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

_THREADS = 8  # a version has three or four files and four folders
_SLOW_SECONDS = 0.02
"""Five fsyncs at once took 154 ms here (ext4, busy processors), and 5.6 ms one after the other."""


class Unsynced:
    """Descriptors of files and folders that wait for their fsync; closed at the end of the block."""

    def __init__(self, slow_seconds: float = _SLOW_SECONDS) -> None:
        self._slow_seconds = slow_seconds
        self._descriptors: list[int] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def add(self, descriptor: int) -> None:
        """Add a file that was written through `descriptor`, which stays its owner's. Raises: OSError."""
        self._descriptors.append(os.dup(descriptor))

    def add_folder(self, path: Path) -> None:
        """Add the names in a folder. Raises: OSError."""
        self._descriptors.append(os.open(path, os.O_RDONLY | os.O_DIRECTORY))

    def sync(self) -> None:
        """Make durable what was added; after an fsync that took long, the rest in threads.

        Raises: OSError: the first refusal, when every fsync that was begun has ended.
        """
        try:
            for number, descriptor in enumerate(self._descriptors, 1):
                began = time.monotonic()
                os.fsync(descriptor)
                if time.monotonic() - began >= self._slow_seconds:
                    _sync_at_once(self._descriptors[number:])
                    return
        finally:
            self._close()

    def _close(self) -> None:
        while self._descriptors:
            os.close(self._descriptors.pop())


def _sync_at_once(descriptors: list[int]) -> None:
    if descriptors:
        # Threads of this call only: a pool that outlives it would be dead in a forked process.
        with ThreadPoolExecutor(min(_THREADS, len(descriptors)), "wardrobe-fsync") as pool:
            list(pool.map(os.fsync, descriptors))


def sync_folders(*paths: Path) -> None:
    """Make durable the names in several folders. Raises: OSError."""
    with Unsynced() as unsynced:
        for path in paths:
            unsynced.add_folder(path)
        unsynced.sync()
