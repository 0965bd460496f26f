"""Where an engine's logs and compiled code go: under the root, else in a temporary folder, told once.

Serving needs neither: a root that is full, read-only or away must not keep an engine from starting.
Invariant: nothing is created where the root's own layout is not, such as on a bare mount point.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from serve.launcher.output.log_file import Folder

ROOM_BYTES = 128 * 1024**2
"""A file system with less left counts as full: a compilation that runs out of room ends the start."""

_PROBE = b"\0" * 4096


class Places:
    """The folders of one replica; `say` tells what goes elsewhere."""

    def __init__(self, root: Path, replica: str, say: Callable[[str], None]) -> None:
        self._root = root
        self._replica = replica
        self._say = say
        self._temporary: Path | None = None
        self._told = ""

    @property
    def logs(self) -> Path:
        """Return where logs go as long as all is well."""
        return self._root / "logs" / self._replica

    def log_folders(self) -> Sequence[Folder]:
        """Return where logs go: each names a folder when it is needed."""
        return (self._own_logs, lambda: self._elsewhere() / "logs")

    def caches(self) -> Path | None:
        """Return a folder that takes compiled code; None leaves it to vLLM. It may wait for a disk."""
        folder = self._root / "cache"
        trouble = self._trouble(folder)
        if not trouble:
            return folder
        try:
            other = self._elsewhere() / "cache"
        except OSError:
            return None
        brought = other.is_dir() or _bring(folder, other)
        if trouble != self._told:
            self._told = trouble
            anew = "" if brought else " and is made anew"
            self._say(f"compiled code goes to {other}{anew}: {folder} {trouble}")
        return other

    def close(self) -> None:
        """Remove compiled code that went elsewhere; logs stay, for who asks why it ended."""
        if self._temporary is not None:
            shutil.rmtree(self._temporary / "cache", ignore_errors=True)

    def _own_logs(self) -> Path:
        self._require_root()
        return self.logs

    def _trouble(self, folder: Path) -> str:
        """Return why `folder` takes nothing, or ''."""
        try:
            self._require_root()
            folder.mkdir(exist_ok=True)
            with tempfile.TemporaryFile(dir=folder) as probe:
                probe.write(_PROBE)
                probe.flush()
                room = os.fstatvfs(probe.fileno())
        except OSError as error:
            return f"cannot be written ({error.strerror or error})"
        free = room.f_bavail * room.f_frsize
        return (
            "" if free >= ROOM_BYTES else f"has {free // 1024**2} MiB left, less than {ROOM_BYTES // 1024**2}"
        )

    def _require_root(self) -> None:
        (self._root / "layout.json").stat()

    def _elsewhere(self) -> Path:
        if self._temporary is None or not self._temporary.is_dir():
            # A name that nobody can guess: what is compiled there is run.
            self._temporary = Path(tempfile.mkdtemp(prefix="wardrobe-"))
        return self._temporary


def _bring(cache: Path, other: Path) -> bool:
    """Copy what was compiled before, which saves a start a minute; whether there was any that could be read.

    It appears under its name when all of it is there.
    """
    unfinished = other.with_name(f"{other.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        size = sum(path.stat().st_size for path in cache.rglob("*") if path.is_file())
        if not size or shutil.disk_usage(other.parent).free < 2 * size:
            return False
        shutil.copytree(cache, unfinished)
        unfinished.rename(other)
    except (OSError, shutil.Error):
        shutil.rmtree(unfinished, ignore_errors=True)
        return False
    return True
