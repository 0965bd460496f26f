"""Writing a page to where its reader wants it."""

from __future__ import annotations

from pathlib import Path

from registry.errors import UsageError
from registry.storage import files


def check_target(path: Path) -> None:
    """Refuse a place where no page can be written; asked before hours of work, not after.

    Raises: UsageError.
    """
    if path.is_dir():
        raise UsageError(str(path), "is a folder", "name a file, such as page.html", param="html")
    above = next(parent for parent in path.absolute().parents if parent.exists())
    if not above.is_dir():
        raise UsageError(str(path), f"{above} is not a folder", "name a file in a folder", param="html")


def write_page(path: Path, page: str) -> None:
    """Write `page` in one step, and the folders above it.

    Raises: UsageError: a folder is there; StorageFailed.
    """
    check_target(path)
    files.make_directory(path.parent)
    files.replace(path, page.encode("utf-8", "backslashreplace"))
