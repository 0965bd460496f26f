"""The trial of a mount: do the steps that the store relies on work there?

Owns the trial and its throw-away files (the only writes outside `registry.files`). A file system on which
a rename overwrites a folder, or a link a file, would lose versions and alias moves without an error, so
it is refused before the first of them.
"""

from __future__ import annotations

import os
import uuid
from pathlib import Path

from registry.errors import UnsafeRoot
from registry.files import NO_LINKS, TAKEN, remove_tree

_UNSAFE_REMEDY = "put the root on a local disk or on NFS 4"


def self_test(directory: Path) -> None:
    """Try in `directory` the steps that the store relies on; a read-only mount is left untested.

    Raises: UnsafeRoot: when a rename would overwrite a folder, or a link a file.
    """
    trial = directory / f".selftest-{uuid.uuid4().hex}"
    try:
        trial.mkdir()
    except OSError:
        return
    try:
        _try_renames(trial)
        _try_links(trial)
    except OSError as error:
        raise UnsafeRoot(
            str(directory), f"renaming files fails here ({error.strerror})", _UNSAFE_REMEDY
        ) from error
    finally:
        remove_tree(trial)


def _try_renames(trial: Path) -> None:
    for name in ("first", "second"):
        (trial / name).mkdir()
        (trial / name / "file").write_bytes(name.encode())
    try:
        (trial / "first").rename(trial / "second")
    except OSError as error:
        if error.errno not in TAKEN:
            raise
    else:
        raise UnsafeRoot(str(trial.parent), "a rename replaces a folder that is not empty", _UNSAFE_REMEDY)
    (trial / "first" / "file").replace(trial / "second" / "file")
    if (trial / "second" / "file").read_bytes() != b"first":
        raise UnsafeRoot(str(trial.parent), "a rename does not replace a file", _UNSAFE_REMEDY)


def _try_links(trial: Path) -> None:
    source, target = trial / "source", trial / "target"
    source.write_bytes(b"source")
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno in NO_LINKS:
            return
        raise
    try:
        os.link(source, target)
    except FileExistsError:
        return
    raise UnsafeRoot(str(trial.parent), "a link replaces a file that exists", _UNSAFE_REMEDY)
