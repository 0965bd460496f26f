"""A folder that appears whole or not at all.

Invariant: `out` comes by one rename of a finished sibling; a run that is killed leaves nothing under its
name (at most the sibling, whose name begins with a dot).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from registry.errors import Conflict


def check_free(out: Path) -> None:
    """Refuse an `out` that exists.

    Raises: Conflict.
    """
    if out.exists() or out.is_symlink():
        raise Conflict(str(out), "exists already", "choose a new folder, or remove it")


@contextlib.contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Give an empty folder that becomes `out` when the block ends well, and is removed when it does not.

    Raises: Conflict: when `out` exists before or after.
    """
    with _sibling(out) as staging:
        yield staging
        for path in staging.rglob("*"):
            # safetensors writes for the owner alone; a server may be another user.
            path.chmod(0o755 if path.is_dir() else 0o644)
            _sync(path)
        check_free(out)
        staging.rename(out)
        _sync(out.parent)


@contextlib.contextmanager
def new_file(out: Path, report: str) -> Iterator[Path]:
    """Give an empty folder whose one file becomes `out` when the block ends well.

    The folder's `report`, if there is one, becomes `STEM.REPORT` beside it, first.

    Raises: Conflict: when `out` or the report's place exists before or after.
    """
    beside = out.with_name(f"{out.stem}.{report}")
    check_free(beside)
    with _sibling(out) as staging:
        yield staging
        (file,) = (path for path in staging.iterdir() if path.name != report)
        for path, place in ((staging / report, beside), (file, out)):
            path.chmod(0o644)
            _sync(path)
            check_free(place)
            path.rename(place)
        _sync(out.parent)


@contextlib.contextmanager
def _sibling(out: Path) -> Iterator[Path]:
    """Give an empty folder beside `out`, which is free, and remove it if it is still there at the end."""
    check_free(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    staging = out.parent / f".{out.name}.{uuid.uuid4().hex[:8]}"
    staging.mkdir()
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
