"""Marks in `layout.json`: that something was once made, so that losing it is told from never making it.

Owns the fields that are true or absent. Invariant: a mark is never taken back.
"""

from __future__ import annotations

from pathlib import Path

from registry.errors import Missing
from registry.storage import disk, files
from registry.storage.anchor import LAYOUT
from registry.storage.entry import Entry, encode


def noted(root: Path, mark: str) -> bool:
    """Return whether the root says that what `mark` stands for was made.

    Raises: CorruptStore; StorageFailed.
    """
    try:
        return Entry.read(root / LAYOUT).fields.get(mark) is True
    except Missing:
        return False  # no root, or one that is being made


def put_mark(root: Path, mark: str) -> None:
    """Have the root say that what `mark` stands for was made; where there is no root yet, nothing is.

    Raises: CorruptStore; StorageFailed.
    """
    if not noted(root, mark) and disk.exists(layout := root / LAYOUT):
        files.replace(layout, encode({**Entry.read(layout).fields, mark: True}))
