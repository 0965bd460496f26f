"""The anchor: whether a path still leads into the root that was opened, asked before every write.

A root may be unmounted under a running process, and mounted again. Writing then would fill the bare mount
point with folders that nobody finds again. `hold` remembers the identity of an opened root; `check` refuses a
write below it while something else, or nothing, lies there. A path below no opened root is nobody's here.

The identity is `id` in `layout.json`; a root made before there was one is known by its `base.json`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from registry.errors import CorruptStore, Missing, RootAway
from registry.storage import disk
from registry.storage.entry import Entry

LAYOUT, BASE = "layout.json", "base.json"

_REMEDY = "check that the root is mounted; nothing is written meanwhile"


@dataclass(slots=True, eq=False)
class _Anchor:
    """One opened root: `mark` is of the `layout.json` that was last seen to be its own."""

    identity: str
    trial: Callable[[], None] | None
    mark: tuple[int, int, int] | None = None


_anchors: dict[Path, _Anchor] = {}


def identity(root: Path) -> str:
    """Return what tells the root at `root` from any other.

    Raises: Missing; CorruptStore; StorageFailed.
    """
    found = Entry.read(root / LAYOUT).optional_text("id")
    return found or f"base-{hashlib.sha256(disk.read(root / BASE)).hexdigest()}"


def hold(root: Path, trial: Callable[[], None]) -> None:
    """Remember the root at `root` (absolute, free of links); `trial` runs before the first write below it.

    Raises: Missing; CorruptStore; StorageFailed.
    """
    found = identity(root)
    known = _anchors.get(root)
    if known is None or known.identity != found:
        _anchors[root] = _Anchor(found, trial)


def drop(root: Path) -> None:
    """Forget a root: another one is about to be made at its place."""
    _anchors.pop(root, None)


def root_of(path: Path) -> Path | None:
    """Return the opened root that `path` is in, None where it is in none."""
    if path in _anchors:
        return path
    return next((parent for parent in path.parents if parent in _anchors), None)


def check(path: Path) -> None:
    """Pass when `path` may be written: its root is the one that was opened, and was tried once.

    Raises: RootAway; StorageFailed; whatever the trial raises.
    """
    root = root_of(path)
    if root is not None:
        confirm(root)
        anchor = _anchors[root]
        if anchor.trial is not None:
            trial, anchor.trial = anchor.trial, None
            try:
                trial()
            except BaseException:
                anchor.trial = trial
                raise


def confirm(root: Path) -> None:
    """Pass when the root that was opened at `root` is there.

    Raises: RootAway; StorageFailed: that cannot be told.
    """
    anchor = _anchors.get(root)
    if anchor is None:
        return
    try:
        mark = _mark(root)
        if mark == anchor.mark:
            return
        found = identity(root)
    except Missing as error:
        raise RootAway(str(root), "is not there any more (no layout.json)", _REMEDY) from error
    except CorruptStore as error:
        raise RootAway(str(root), f"cannot be recognised: {error.fact}", _REMEDY) from error
    if found != anchor.identity:
        raise RootAway(str(root), "holds another root than the one that was opened", _REMEDY)
    anchor.mark = mark


def _mark(root: Path) -> tuple[int, int, int]:
    try:
        state = disk.status(root / LAYOUT)
    except disk.NotAFolder as error:
        raise Missing(error.subject, error.fact, error.remedy) from error
    return state.st_dev, state.st_ino, state.st_mtime_ns
