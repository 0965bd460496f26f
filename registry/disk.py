"""Reading the disk: names, numbered logs, whole files, and what a refusal of the file system means.

Owns the way from an `OSError` to `StorageFailed`. Invariants: no symlink is followed at the end of a path;
a name that begins with a dot is unfinished work of `registry.files` and is passed over. A file or folder
that is not there stays a `FileNotFoundError`: to most readers it is an answer.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from registry.errors import StorageFailed

# Where hard links are missing, an entry is a folder with this one file.
ENTRY_FILE = "entry.json"
_REMEDIES = {
    errno.ENOSPC: "free space on the disk (`wardrobe gc --apply` helps) and try again",
    errno.EDQUOT: "raise the quota or free space and try again",
    errno.EACCES: "run as the owner of the root, or give this user write permission",
    errno.EROFS: "mount the root for writing",
}


def entry_numbers(directory: Path, *, prefix: str = "") -> list[int]:
    """Return the numbers of the entries `<prefix><number>.json`, ascending; none where nothing is.

    Raises: StorageFailed.
    """
    found = []
    for name in names(directory):
        if name.startswith(prefix) and name.endswith(".json"):
            number = name[len(prefix) : -len(".json")]
            if number.isdigit() and not number.startswith("0"):
                found.append(int(number))
    return sorted(found)


def names(directory: Path) -> list[str]:
    """Return the finished names in `directory`, sorted; none where it does not exist.

    Raises: StorageFailed.
    """
    try:
        with explained(directory), os.scandir(directory) as entries:
            return sorted(entry.name for entry in entries if not entry.name.startswith("."))
    except FileNotFoundError:
        return []


def read(path: Path) -> bytes:
    """Return the content of a file or of an entry; a symlink is refused.

    Raises: FileNotFoundError; StorageFailed.
    """
    with explained(path):
        try:
            with open_plain(path) as file:
                return file.read()
        except IsADirectoryError:
            with open_plain(path / ENTRY_FILE) as file:
                return file.read()


def hash_file(path: Path) -> tuple[int, str]:
    """Return the size and hex sha256 of a plain file; a symlink is refused.

    Raises: FileNotFoundError; StorageFailed.
    """
    with explained(path), open_plain(path) as file:
        digest = hashlib.file_digest(file, "sha256")
        return file.tell(), digest.hexdigest()


@contextlib.contextmanager
def open_plain(path: Path) -> Iterator[io.BufferedReader]:
    """Open a plain file for reading; a symlink, pipe or folder is refused.

    Raises: OSError.
    """
    # O_NONBLOCK: opening a pipe that somebody left here must not wait for its other end.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    with os.fdopen(descriptor, "rb") as file:
        yield file


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn an `OSError` into `StorageFailed` about `path`, except that something exists or does not."""
    try:
        yield
    except OSError as error:
        if isinstance(error, FileNotFoundError | FileExistsError):
            raise
        reason = error.strerror or str(error)
        remedy = _REMEDIES.get(error.errno or 0, "check the disk and the mount")
        raise StorageFailed(str(path), f"the file system refused ({reason})", remedy) from error
