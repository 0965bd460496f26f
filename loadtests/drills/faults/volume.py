"""A small disk of its own for a root, and the faults that a disk has: away, read-only, full.

Owns a tmpfs of 384 MiB and a bind mount of its folder at `point`, which is the server's root. What another
machine would do to the same disk is done through `store`. Needs the right to mount: without it the drill
starts again inside a user namespace (`unshare -Urm`).
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

SIZE = "384m"


def may_mount(scratch: Path) -> bool:
    """Return whether this process may mount a tmpfs at `scratch`."""
    tried = subprocess.run(["mount", "-t", "tmpfs", "none", str(scratch)], capture_output=True, check=False)
    if tried.returncode == 0:
        _run("umount", scratch)
    return tried.returncode == 0


def start_again_inside() -> int:
    """Run this program once more where it may mount, and return its exit code; 2 where nothing helps."""
    if os.environ.get("WARDROBE_DRILL_INSIDE") or shutil.which("unshare") is None:
        print("the fault drill needs the right to mount: run it as root, or where `unshare -Urm` works")
        return 2
    command = ["unshare", "--map-root-user", "--mount", sys.executable, "-P", *sys.orig_argv[1:]]
    return subprocess.run(command, env={**os.environ, "WARDROBE_DRILL_INSIDE": "1"}, check=False).returncode


class Volume:
    """The disk; every fault is undone by its opposite, and `close` undoes all."""

    def __init__(self, folder: Path) -> None:
        self._disk = folder / "disk"
        self.store = self._disk / "root"
        self.point = folder / "point"
        self._ballast = self._disk / "ballast"
        self._disk.mkdir()
        self.point.mkdir()
        _run("mount", "-t", "tmpfs", "-o", f"size={SIZE}", "none", self._disk)
        self.store.mkdir()
        self.back()

    def back(self) -> None:
        """Mount the root."""
        _run("mount", "--bind", self.store, self.point)

    def away(self) -> None:
        """Unmount the root; the bare mount point stays."""
        _run("umount", "-l", self.point)

    def read_only(self) -> None:
        """Let nobody write through `point`; `store` can still be written."""
        _run("mount", "-o", "remount,bind,ro", self.point)

    def writable(self) -> None:
        """End `read_only`."""
        _run("mount", "-o", "remount,bind,rw", self.point)

    def fill(self) -> None:
        """Write until there is not one byte left."""
        with self._ballast.open("wb", buffering=0) as file:
            for size in (1 << 20, 4096):
                try:
                    while True:
                        file.write(b"\0" * size)
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise

    def empty(self) -> None:
        """End `fill`."""
        self._ballast.unlink(missing_ok=True)

    def close(self) -> None:
        """Unmount everything."""
        for path in (self.point, self._disk):
            subprocess.run(["umount", "-l", str(path)], capture_output=True, check=False)


@contextlib.contextmanager
def volume(folder: Path) -> Iterator[Volume]:
    """Yield a disk in `folder`, and take it away in the end."""
    made = Volume(folder)
    try:
        yield made
    finally:
        made.close()


def _run(*command: str | Path) -> None:
    subprocess.run(list(map(str, command)), check=True, capture_output=True)
