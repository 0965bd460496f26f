"""What was written and is not durable yet, made durable together.

A journal's commit takes what several threads wait for; one fsync after the other waits for as many commits.
Invariant: after `sync` all that was added survives a power cut, or it raised; descriptors are the writers'
own, so that no error of writing back goes to somebody else.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

_THREADS = 8  # a version has three or four files and four folders


class Unsynced:
    """Descriptors of files and folders that wait for their fsync; closed at the end of the block."""

    def __init__(self) -> None:
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
        """Make durable what was added; returns, or raises the first refusal, when every fsync has ended.

        Raises: OSError.
        """
        try:
            if len(self._descriptors) == 1:
                os.fsync(self._descriptors[0])
            elif self._descriptors:
                # Threads of this call only: a pool that outlives it would be dead in a forked process.
                with ThreadPoolExecutor(min(_THREADS, len(self._descriptors)), "wardrobe-fsync") as pool:
                    list(pool.map(os.fsync, self._descriptors))
        finally:
            self._close()

    def _close(self) -> None:
        while self._descriptors:
            os.close(self._descriptors.pop())


def sync_folders(*paths: Path) -> None:
    """Make durable the names in several folders. Raises: OSError."""
    with Unsynced() as unsynced:
        for path in paths:
            unsynced.add_folder(path)
        unsynced.sync()
