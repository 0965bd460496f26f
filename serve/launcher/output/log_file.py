"""One engine's log on disk: bounded, in the first place that takes it, and never waited for.

Owns the file and what is told of it when it cannot be written; the last words also stay in memory
(`engine_log`). Invariant: `write` never raises. It may wait for a disk, so a thread calls it.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from serve.launcher.output.logs import PART_BYTES, earlier_part, next_log
from serve.launcher.output.voice import write_all

Folder = Callable[[], Path]
"""Names a folder when it is needed. Raises: OSError: where there is none."""

RETRY_SECONDS = 30.0
"""How long a place that failed is not tried again."""


class LogFile:
    """A numbered file in the first of `folders` that takes it; `say` tells once where a log goes instead."""

    def __init__(
        self,
        folders: Sequence[Folder],
        say: Callable[[str], None],
        *,
        part_bytes: int = PART_BYTES,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._folders = folders
        self._say = say
        self._part_bytes = part_bytes
        self._clock = clock
        self._paths: dict[int, Path] = {}
        self._failed_at: dict[int, float] = {}
        self._place = -1
        self._descriptor = -1
        self._size = 0
        self._lost = 0
        self._told: set[str] = set()
        self.path: Path | None = None

    def write(self, data: bytes) -> None:
        """Append `data` in the first place that takes it, or count it as lost."""
        if self._descriptor >= 0 and (self._is_gone() or self._is_better_place_due()):
            self.close()
        while self._descriptor >= 0 or self._open():
            try:
                self._append(data)
            except OSError as error:
                self._give_up(self._place, error)
            else:
                return
        self._lost += len(data)

    def close(self) -> None:
        """Close the file; a later `write` opens it again."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            with contextlib.suppress(OSError):  # what a file system says late of what was written
                os.close(descriptor)

    def _append(self, data: bytes) -> None:
        if self._lost:
            note = f"[wardrobe: {self._lost} bytes are missing here: they could not be written]\n".encode()
            write_all(self._descriptor, note)
            self._lost = 0
        write_all(self._descriptor, data)
        self._size += len(data)
        if self._size >= self._part_bytes and self.path is not None:
            self.close()
            self.path.replace(earlier_part(self.path))

    def _is_gone(self) -> bool:
        """Return whether somebody has removed the file: nobody would find what is written to it."""
        try:
            return os.fstat(self._descriptor).st_nlink == 0
        except OSError:
            return True

    def _is_better_place_due(self) -> bool:
        return any(self._may_try(place) for place in range(self._place))

    def _may_try(self, place: int) -> bool:
        failed_at = self._failed_at.get(place)
        return failed_at is None or self._clock() >= failed_at + RETRY_SECONDS

    def _open(self) -> bool:
        for place, folder in enumerate(self._folders):
            if not self._may_try(place):
                continue
            try:
                self._open_in(place, folder)
            except OSError as error:
                self._give_up(place, error)
            else:
                return True
        self._tell("the engine's log is kept in memory only")
        return False

    def _open_in(self, place: int, folder: Folder) -> None:
        path = self._paths.get(place)
        if path is None or not path.parent.is_dir():
            path = next_log(folder())
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        self._size = os.fstat(self._descriptor).st_size
        self._paths[place] = self.path = path
        self._place = place
        if place:
            self._tell(f"the engine's log goes to {path}")

    def _give_up(self, place: int, error: OSError) -> None:
        self.close()
        self._failed_at[place] = self._clock()
        where = error.filename or self._paths.get(place) or "its place"
        self._tell(f"the engine's log cannot be written to {where} ({error.strerror or error})")

    def _tell(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            self._say(text)
