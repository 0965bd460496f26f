"""The trial of a mount: do the steps that the store relies on work there?

Owns the trial and its throw-away files (the only writes outside `registry.storage.files` and
`registry.storage.placing`). A file system on which a rename overwrites a folder, or a link a file, would lose
versions and alias moves without an error, so it is refused before the first of them. One that takes no writes
now (read-only, full, no rights) proves nothing either way and is left untested.
"""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from pathlib import Path

from registry.errors import UnsafeRoot
from registry.storage.files import NO_LINKS, TAKEN

# What says nothing of how renames and links work here.
_UNTESTED = frozenset(
    {
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EROFS,
        errno.EACCES,
        errno.EPERM,
        errno.EMFILE,
        errno.ENFILE,
        errno.EIO,
    }
)
_REMEDY = "put the root on a local disk or on NFS 4"


class MountSteps:
    """The two steps on trial, as this machine does them; tests put those of a bad mount here."""

    def rename(self, source: Path, target: Path) -> None:
        """Rename `source` to `target`."""
        source.rename(target)

    def link(self, source: Path, target: Path) -> None:
        """Give `source` the second name `target`."""
        os.link(source, target)


def self_test(directory: Path, steps: MountSteps | None = None) -> None:
    """Try in `directory` the steps that the store relies on; where nothing can be written, it is untested.

    Raises: UnsafeRoot: when a rename would overwrite a folder, or a link a file.
    """
    trial = directory / f".selftest-{uuid.uuid4().hex}.tmp"
    try:
        trial.mkdir()
    except OSError:
        return
    try:
        _try_renames(trial, steps or MountSteps())
        _try_links(trial, steps or MountSteps())
    except OSError as error:
        if error.errno not in _UNTESTED:
            fact = f"renaming files fails here ({error.strerror})"
            raise UnsafeRoot(str(directory), fact, _REMEDY) from error
    finally:
        shutil.rmtree(trial, ignore_errors=True)


def _try_renames(trial: Path, steps: MountSteps) -> None:
    first, second = trial / "first", trial / "second"
    for folder in (first, second):
        folder.mkdir()
        (folder / "file").write_bytes(folder.name.encode())
    try:
        steps.rename(first, second)
    except OSError as error:
        if error.errno not in TAKEN:
            raise
    else:
        raise UnsafeRoot(str(trial.parent), "a rename replaces a folder that is not empty", _REMEDY)
    steps.rename(first / "file", second / "file")
    if (second / "file").read_bytes() != b"first":
        raise UnsafeRoot(str(trial.parent), "a rename does not replace a file", _REMEDY)


def _try_links(trial: Path, steps: MountSteps) -> None:
    source, target = trial / "source", trial / "target"
    source.write_bytes(b"source")
    try:
        steps.link(source, target)
    except OSError as error:
        if error.errno in NO_LINKS:
            return
        raise
    try:
        steps.link(source, target)
    except FileExistsError:
        return
    raise UnsafeRoot(str(trial.parent), "a link replaces a file that exists", _REMEDY)
