"""Links in a folder that its own user names: followed to a regular file, or told by name what they are.

Download caches and data version control keep a folder's files as links into a store of their own. Owns the
resolution of one path; opens nothing. Invariants: what is handed out is the path of a regular file, free of
links, so that a copy of it can be opened without following any; what leads elsewhere is never silent.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterable
from pathlib import Path

from registry.errors import InvalidAdapter

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
)
_ANNEX = "/annex/objects/"


def real_file(path: Path, subject: str) -> Path:
    """Return the regular file that `path` is or leads to.

    Raises: InvalidAdapter: reason `path` for a broken link, a loop, what may not be read, or no file.
    """
    try:
        real = path.resolve(strict=True)
        mode = real.stat().st_mode
    except RuntimeError as error:  # how Python before 3.13 tells of a loop
        raise _loop(path, subject) from error
    except OSError as error:
        raise unreadable(path, error, subject) from error
    if not stat.S_ISREG(mode):
        kind = next((words for test, words in _KINDS if test(mode)), "no regular file")
        what = f"is a link to {real}, which is {kind}" if path.is_symlink() else f"is {kind}"
        remedy = "give a regular file, or a link to one"
        raise InvalidAdapter(subject, f"{path.name} {what}", remedy, reason="path")
    return real


def followed_out(folder: Path, names: Iterable[str]) -> dict[str, Path]:
    """Return which of `names` in `folder` are links that lead elsewhere, and to which file each leads.

    Not elsewhere is the folder itself, and the blobs of the Hub's cache that the folder is a snapshot in.
    Links that lead to nothing are left to whoever opens them.
    """
    found: dict[str, Path] = {}
    home = Path(os.path.realpath(folder))
    for name in sorted(names):
        if (path := folder / name).is_symlink():
            with contextlib.suppress(OSError, RuntimeError):
                real = path.resolve(strict=True)
                if not (real.is_relative_to(home) or _is_blob(real, home)):
                    found[name] = real
    return found


def refuse_links(folder: Path, subject: str) -> None:
    """Refuse a folder that holds a link: one that nobody may have put there.

    Raises: InvalidAdapter: reason `path`.
    """
    links = sorted(entry.name for entry in os.scandir(folder) if entry.is_symlink())
    if links:
        raise InvalidAdapter(subject, f"{links[0]} is a symbolic link", "send the file itself", reason="path")


def unreadable(path: Path, error: OSError, subject: str) -> InvalidAdapter:
    """Return the refusal of a path that the system would not open, with the way out."""
    if error.errno == errno.ELOOP:
        return _loop(path, subject)
    if path.is_symlink() and error.errno in {errno.ENOENT, errno.ENOTDIR}:
        return _broken(path, subject)
    if error.errno in {errno.EACCES, errno.EPERM}:
        where = f" (a link to {os.path.realpath(path)})" if path.is_symlink() else ""
        fact = f"{path.name}{where} may not be read by this user: {error.strerror}"
        remedy = "give this user the right to read it (`chmod a+r`), or run this as its owner"
        return InvalidAdapter(subject, fact, remedy, reason="path")
    fact = f"{path.name}: {error.strerror or error}"
    return InvalidAdapter(subject, fact, "check the path", reason="path")


def _is_blob(real: Path, snapshot: Path) -> bool:
    """Tell `<repository>/blobs/<hash>`, of which `<repository>/snapshots/<revision>` is the snapshot."""
    repository = real.parent.parent
    return real.parent.name == "blobs" and snapshot.is_relative_to(repository / "snapshots")


def _broken(path: Path, subject: str) -> InvalidAdapter:
    target = os.path.realpath(path)
    fact = f"{path.name} is a link to {target}, which is not there"
    remedy = "download or check the folder out again, so that the file it leads to exists"
    if _ANNEX in target:
        remedy = f"its content was not fetched: run `git annex get {path.name}`"
    return InvalidAdapter(subject, fact, remedy, reason="path")


def _loop(path: Path, subject: str) -> InvalidAdapter:
    fact = f"{path.name} is a link that leads back to itself"
    return InvalidAdapter(subject, fact, "replace it by the file", reason="path")
