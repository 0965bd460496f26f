"""What `wardrobe init` says beside what it does: of the base, its name, and the folder that became a root."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from registry.cli.output import in_short

if TYPE_CHECKING:
    from registry.records import BaseModelInfo


def base_before(root: Path) -> BaseModelInfo | None:
    """Return the base of a root that exists already."""
    from registry.errors import NotFound
    from registry.store import Registry

    try:
        return Registry.open(root).base
    except NotFound:
        return None


def others_in(root: Path) -> list[str]:
    """Return what to say of a folder that becomes a root and holds other things."""
    from registry.storage import reserve
    from registry.storage.anchor import BASE, LAYOUT
    from registry.storage.root import FOLDERS, SETTINGS

    try:
        found = sorted(path.name for path in root.iterdir())
    except OSError:  # it is not there yet; what else is wrong with it, the first write tells
        return []
    if LAYOUT in found:
        return []
    # What an `init` that was killed left is its own.
    own = {*FOLDERS, reserve.NAME, BASE, SETTINGS}
    half_written = tuple(f".{name}." for name in (BASE, SETTINGS, LAYOUT))
    found = [name for name in found if name not in own and not name.startswith(half_written)]
    if not found:
        return []
    return [f"{root} held other things already, which stay beside the root's files: {in_short(found)}"]


def init_notes(
    before: BaseModelInfo | None, now: BaseModelInfo, folder: Path, *, named: bool
) -> Iterator[str]:
    """Yield what people should know of an `init`: the name it chose, or what it changed on a root."""
    from registry.validation.base import read_base

    if before is None:
        if not named:
            yield f"the base is served as {now.name}, which its path calls it; --name gives another name"
        return
    if before.path != now.path:
        yield f"the base is at {now.path} now; it was at {before.path}"
    if before.name != now.name:
        yield f"the base is called {now.name} now; clients that ask for {before.name} will not be answered"
    elif not named and read_base(folder).name != now.name:
        yield f"the base keeps its name, {now.name}; --name gives another"
