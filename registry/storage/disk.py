"""Reading the disk: names, numbered logs, whole files, and what a refusal of the file system means.

Owns the way from an `OSError` to our own errors: nothing else leaves this module or `registry.storage.files`.
What is not there is `Missing`, which to most readers is an answer. Invariants: no symlink is followed at the
end of a path; a name that begins with a dot is unfinished work of `registry.storage.files` and is passed
over; no file is read beyond `MAX_BYTES`.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from registry.errors import CorruptStore, DiskFull, Missing, Occupied, StorageFailed

# Where hard links are missing, an entry is a folder with this one file.
ENTRY_FILE = "entry.json"
MAX_BYTES = 256 * 1024**2
"""Longest file that is read whole; the longest that we write is a job's metrics, some megabytes."""

# A directory's mtime has the resolution of the kernel's tick, and over NFS another machine's clock.
_UNSETTLED_NS = 2_000_000_000
_NUMBER = re.compile(r"[1-9][0-9]{0,8}")
_RESTORE = "restore it from a backup"
_REMEDIES = {
    errno.EACCES: "run as the owner of the root, or give this user the right to it",
    errno.EPERM: "run as the owner of the root, or give this user the right to it",
    errno.EROFS: "mount the root for writing",
    errno.EMFILE: "raise the limit of open files (`ulimit -n`) and try again",
    errno.ENFILE: "close files on this machine and try again",
    errno.ESTALE: "mount the root again",
}
# What opening says of a folder, a socket, a link, and of a name below a file.
_NO_FILE = frozenset({errno.EISDIR, errno.ENXIO, errno.ELOOP, errno.ENOTDIR})
# What a file says that this process may not read, and not that the disk has a bad moment.
_CLOSED = frozenset({errno.EACCES, errno.EPERM, errno.ELOOP})
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})
_COLLECT = "`wardrobe gc --apply --now`, which needs no room, removes what deleted versions hold, if any"


def entry_numbers(directory: Path, *, prefix: str = "") -> list[int]:
    """Return the numbers of the entries `<prefix><number>.json`, ascending; none where nothing is.

    Raises: StorageFailed.
    """
    found = []
    for name in names(directory):
        if name.startswith(prefix) and name.endswith(".json"):
            number = name[len(prefix) : -len(".json")]
            if _NUMBER.fullmatch(number):
                found.append(int(number))
    return sorted(found)


def numbers(directory: Path) -> list[int]:
    """Return the names in `directory` that are numbers of nine digits at most, ascending.

    Raises: StorageFailed.
    """
    return sorted(int(name) for name in names(directory) if _NUMBER.fullmatch(name))


def names(directory: Path) -> list[str]:
    """Return the finished names in `directory`, sorted; none where it does not exist or is a file.

    Raises: StorageFailed.
    """
    try:
        with explained(directory), os.scandir(directory) as entries:
            return sorted(entry.name for entry in entries if not entry.name.startswith("."))
    except (Missing, NotAFolder):
        return []


def statuses(directory: Path) -> dict[str, os.stat_result]:
    """Return the finished names in `directory`, each with its status; links are not followed.

    What vanishes meanwhile is left out. Raises: Missing: the directory is not there; StorageFailed.
    """
    found = {}
    with explained(directory), os.scandir(directory) as entries:
        for entry in entries:
            if not entry.name.startswith("."):
                with contextlib.suppress(FileNotFoundError):
                    found[entry.name] = entry.stat(follow_symlinks=False)
    return found


def read(path: Path, *, limit: int = MAX_BYTES) -> bytes:
    """Return the content of a file or of an entry; a symlink is refused.

    Raises: Missing; CorruptStore: longer than `limit` bytes, or no file and no entry; StorageFailed.
    """
    with explained(path):
        try:
            return _read_plain(path, limit)
        except OSError as error:
            if error.errno not in _NO_FILE:
                raise
            if error.errno == errno.EISDIR:
                with contextlib.suppress(OSError):
                    return _read_plain(path / ENTRY_FILE, limit)
            raise CorruptStore(str(path), "is not a plain file", _RESTORE) from error


def status(path: Path) -> os.stat_result:
    """Return what the file system says of `path` itself; a symlink is not followed.

    Raises: Missing; StorageFailed.
    """
    with explained(path):
        return path.lstat()


def settled(status: os.stat_result) -> bool:
    """Return whether a later change would show in the mtime; what changed just now must be read again."""
    return time.time_ns() - status.st_mtime_ns > _UNSETTLED_NS


def exists(path: Path) -> bool:
    """Return whether something has the name `path`.

    Raises: StorageFailed: that cannot be told.
    """
    try:
        status(path)
    except (Missing, NotAFolder):
        return False
    return True


def is_folder(path: Path) -> bool:
    """Return whether `path` is a folder, and no link to one.

    Raises: StorageFailed: that cannot be told.
    """
    try:
        return stat.S_ISDIR(status(path).st_mode)
    except (Missing, NotAFolder):
        return False


def walk(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Yield everything below `folder` with its status, unfinished work included; links are not followed.

    What vanishes meanwhile is passed over. Raises: StorageFailed.
    """
    try:
        with explained(folder), os.scandir(folder) as entries:
            found = sorted(Path(entry.path) for entry in entries)
    except (Missing, NotAFolder):
        return
    for path in found:
        try:
            state = status(path)
        except Missing:
            continue
        yield path, state
        if stat.S_ISDIR(state.st_mode):
            yield from walk(path)


def resolved(path: Path) -> Path:
    """Return `path` absolute and free of links; its last part need not exist.

    Raises: StorageFailed: also for links that lead in a circle.
    """
    try:
        with explained(path):
            return path.resolve()
    except RuntimeError as error:  # a circle of links, before Python 3.13
        raise StorageFailed(str(path), "leads in a circle of symbolic links", "correct the link") from error


def closed_to_us(error: StorageFailed) -> bool:
    """Return whether a file was refused to this user for good, and not because the disk has a bad moment."""
    cause = error.__cause__
    return isinstance(cause, OSError) and cause.errno in _CLOSED


@contextlib.contextmanager
def open_plain(path: Path) -> Iterator[io.BufferedReader]:
    """Open a plain file for reading; a symlink, pipe or folder is refused.

    Raises: OSError: call it within `explained`.
    """
    # O_NONBLOCK: opening a pipe that somebody left here must not wait for its other end.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    with os.fdopen(descriptor, "rb") as file:
        yield file


class NotAFolder(StorageFailed):
    """A file that stands where the store needs a folder."""

    http_status = 500
    code = "not_a_folder"


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn an `OSError` of the block into our own error about `path`."""
    try:
        yield
    except OSError as error:
        raise _own(path, error) from error


def _own(path: Path, error: OSError) -> StorageFailed:
    subject, number = str(path), error.errno or 0
    if isinstance(error, FileNotFoundError):
        return Missing(subject, "is missing", "check that the root is mounted, or restore it from a backup")
    if isinstance(error, FileExistsError):
        return Occupied(subject, "exists already", "choose another name")
    fact = f"the file system refused ({error.strerror or error})"
    if number in NO_ROOM:
        return DiskFull(subject, fact, _way_to_room(path, number))
    if isinstance(error, NotADirectoryError):
        return NotAFolder(subject, fact, "a file stands where a folder belongs: move it away")
    return StorageFailed(subject, fact, _REMEDIES.get(number, "check the disk and the mount"))


def _way_to_room(path: Path, number: int) -> str:
    if number == errno.EDQUOT:
        return f"raise the quota, or remove files; {_COLLECT}"
    try:
        found = os.statvfs(path.parent)
    except OSError:
        found = None
    if found is not None and found.f_files and not found.f_favail:
        return f"the disk has no inodes left (`df -i`): remove files from it, however small; {_COLLECT}"
    return f"free space on the disk; {_COLLECT}"


def _read_plain(path: Path, limit: int) -> bytes:
    with open_plain(path) as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise CorruptStore(str(path), f"is longer than {limit} bytes", _RESTORE)
    return data
