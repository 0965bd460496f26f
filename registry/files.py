"""The only module that writes the store's files: every change is one atomic step of the file system.

Owns temporary names, fsync, rename, link and trash; knows nothing of adapters. Invariants: a reader sees
the old state or the new one, whatever step the writer died at; a name that begins with a dot is unfinished
work and no reader looks at it; nothing is written where the opened root is not (`registry.anchor`); nothing
but our own errors is raised. `registry.disk` reads what this module writes.

`watch_steps` is the seam of the crash tests: the callback runs before every mutating step, and may kill
the process there or raise an `OSError` in place of the step.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path

from registry import anchor
from registry.disk import ENTRY_FILE, entry_numbers, exists, explained, open_plain, read

PUBLIC_MODE = 0o444
SECRET_MODE = 0o600
_CHUNK_BYTES = 1024 * 1024
# What a file system answers that has no hard links.
NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})
TAKEN = frozenset({errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR, errno.EISDIR})
_on_step: ContextVar[Callable[[str], None] | None] = ContextVar("on_step", default=None)


@contextlib.contextmanager
def watch_steps(callback: Callable[[str], None]) -> Iterator[None]:
    """Call `callback(label)` before every mutating step of this thread, until the block ends."""
    token = _on_step.set(callback)
    try:
        yield
    finally:
        _on_step.reset(token)


def step(label: str) -> None:
    """Announce the mutating step that comes next."""
    callback = _on_step.get()
    if callback is not None:
        callback(label)


def make_directory(path: Path, *, mode: int = 0o777) -> None:
    """Make `path` and what is missing above it, durably.

    Raises: StorageFailed.
    """
    anchor.check(path)
    with explained(path):
        if path.is_dir():
            return
    make_directory(path.parent)
    with explained(path):
        step(f"mkdir {path.name}")
        try:
            path.mkdir(mode=mode)
        except FileExistsError:
            if not path.is_dir():  # else somebody else was faster
                raise
        else:
            _hand_over(path, path.parent)
        sync_directory(path.parent)


def stage(path: Path, data: bytes) -> None:
    """Write and fsync a new file in a folder that no reader looks at yet.

    Raises: Occupied; StorageFailed.
    """
    anchor.check(path)
    with explained(path):
        step(f"write {path.name}")
        _write(path, data, 0o644)


def copy_new(
    source: Path, target: Path, *, mode: int = 0o644, head: bytes = b"", skip_bytes: int = 0
) -> tuple[int, str]:
    """Copy `source` (no symlink) to a new file, fsync it, and return its size and hex sha256.

    `head` is written in place of the source's first `skip_bytes`. Raises: Occupied; StorageFailed.
    """
    anchor.check(target)
    digest = hashlib.sha256(head)
    size = len(head)
    with explained(target), open_plain(source) as reader:
        step(f"copy {target.name}")
        reader.seek(skip_bytes)
        with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as writer:
            _hand_over(writer.fileno(), target.parent)
            writer.write(head)
            while chunk := reader.read(_CHUNK_BYTES):
                digest.update(chunk)
                writer.write(chunk)
                size += len(chunk)
            writer.flush()
            os.fsync(writer.fileno())
    return size, digest.hexdigest()


def replace(path: Path, data: bytes, *, mode: int = 0o644, durable: bool = True) -> None:
    """Put `data` at `path`, whatever was there, in one step; `durable=False` leaves out the fsyncs.

    Raises: StorageFailed: the old content is then still there.
    """
    anchor.check(path)
    temporary = _temporary(path)
    with explained(path), _removed_at_end(temporary):
        step(f"write temporary of {path.name}")
        _write(temporary, data, mode, durable=durable)
        step(f"rename to {path.name}")
        temporary.rename(path)
        if durable:
            sync_directory(path.parent)


def append_lines(path: Path, lines: bytes) -> None:
    """Append `lines` (each ends in a newline) to a file with one writer, made when it is missing; fsynced.

    A torn last line, which a killed writer left, is closed by a newline first.

    Raises: StorageFailed: nothing of `lines` counts then; a part of them may stand there, unfinished.
    """
    anchor.check(path)
    with explained(path):
        step(f"append to {path.name}")
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
        with os.fdopen(os.open(path, flags, 0o644), "ab") as file:
            end = file.tell()
            if not end:
                _hand_over(file.fileno(), path.parent)
            torn = end > 0 and os.pread(file.fileno(), 1, end - 1) != b"\n"
            file.write(b"\n" + lines if torn else lines)
            file.flush()
            os.fsync(file.fileno())


def touch(path: Path) -> None:
    """Put a new empty file at `path` whose time and inode no earlier one had; not fsynced.

    Raises: StorageFailed.
    """
    anchor.check(path)
    temporary = _temporary(path)
    with explained(path), _removed_at_end(temporary):
        step(f"write temporary of {path.name}")
        _write(temporary, b"", 0o644, durable=False)
        # The kernel stamps by its tick (4 ms), within which two changes would look like one.
        now = time.time_ns()
        os.utime(temporary, ns=(now, now))
        step(f"rename to {path.name}")
        temporary.rename(path)


def claim(path: Path, data: bytes, *, mode: int = PUBLIC_MODE) -> bool:
    """Put `data` at `path` unless something is there; return whether this call did it.

    `data` must hold a token that no other writer has: NFS may report that a link exists when it is our
    own. Where hard links are missing the entry is a directory of the same name with one file in it, so
    that writers of both kinds still exclude each other.

    Raises: StorageFailed.
    """
    anchor.check(path)
    temporary = _temporary(path)
    with explained(path), _removed_at_end(temporary):
        step(f"write temporary of {path.name}")
        _write(temporary, data, mode)
        try:
            step(f"link {path.name}")
            os.link(temporary, path)
        except OSError as error:
            if error.errno in NO_LINKS:
                return _claim_by_directory(path, data, mode)
            if error.errno not in TAKEN:
                raise
            return _holds(path, data)
        sync_directory(path.parent)
        return True


def append_entry(
    directory: Path, build: Callable[[int], bytes], *, prefix: str = "", mode: int = PUBLIC_MODE
) -> int:
    """Append the next entry to a numbered log and return its number: compare-and-swap without a lock.

    `build(seq)` reads the present state and returns the entry, or raises to give up; it is called again
    when somebody else wins the number. See `claim` for the token that the entry must hold.

    Raises: StorageFailed; whatever `build` raises.
    """
    while True:
        numbers = entry_numbers(directory, prefix=prefix)
        seq = numbers[-1] + 1 if numbers else 1
        data = build(seq)
        make_directory(directory)
        if claim(directory / f"{prefix}{seq}.json", data, mode=mode):
            return seq


def publish_directory(staged: Path, target: Path) -> None:
    """Rename the finished folder `staged` to `target`, then make it read-only.

    Raises: Occupied: when `target` exists; StorageFailed.
    """
    anchor.check(target)
    with explained(target):
        sync_directory(staged)
        move(staged, target)
        # Only now: a folder without write permission cannot be renamed by its owner.
        for path in target.iterdir():
            step(f"chmod {path.name}")
            path.chmod(PUBLIC_MODE)
        step(f"chmod {target.name}")
        target.chmod(0o555)


def move(source: Path, target: Path) -> None:
    """Rename `source` to a name that is free.

    Raises: Occupied: when `target` exists; Missing; StorageFailed.
    """
    anchor.check(target)
    with explained(target):
        if os.path.lexists(target):
            # A rename onto an EMPTY directory would silently succeed.
            raise _exists(target)
        if source.is_dir() and not source.is_symlink():
            step(f"chmod {source.name}")
            source.chmod(0o755)
        step(f"rename to {target.name}")
        try:
            source.rename(target)
        except OSError as error:
            if error.errno in TAKEN:
                raise _exists(target) from error
            raise
        sync_directory(target.parent)
        sync_directory(source.parent)


def remove(path: Path) -> None:
    """Remove a file or an entry; one that is gone is no error.

    Raises: StorageFailed.
    """
    anchor.check(path)
    with explained(path), contextlib.suppress(FileNotFoundError):
        step(f"unlink {path.name}")
        try:
            path.unlink()
        except (IsADirectoryError, PermissionError):
            if not path.is_dir():
                raise
            remove_tree(path)
        sync_directory(path.parent)


def remove_tree(path: Path) -> None:
    """Remove a file or a whole folder, read-only ones too; what is gone is no error. It needs no room.

    Raises: StorageFailed.
    """
    anchor.check(path)
    with explained(path):
        _remove_tree(path)


def shorten(path: Path, size: int) -> None:
    """Cut a file to `size` bytes in place, which needs no room; to none removes it.

    Raises: Missing; StorageFailed.
    """
    anchor.check(path)
    with explained(path):
        step(f"shorten {path.name}")
        if not size:
            path.unlink()
            return
        descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW)
        try:
            os.ftruncate(descriptor, size)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def remove_empty(directory: Path) -> None:
    """Remove `directory` if it exists and is empty."""
    with contextlib.suppress(OSError):
        step(f"rmdir {directory.name}")
        directory.rmdir()


def sync_directory(directory: Path) -> None:
    """Fsync a directory, so that the names in it survive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _claim_by_directory(path: Path, data: bytes, mode: int) -> bool:
    # The folder is filled before it is renamed: claiming first and filling later would leave an empty
    # entry after a crash, and renaming onto an empty folder would succeed.
    temporary = _temporary(path)
    try:
        step(f"mkdir temporary of {path.name}")
        temporary.mkdir()
        _hand_over(temporary, path.parent)
        step(f"write temporary of {path.name}")
        _write(temporary / ENTRY_FILE, data, mode)
        sync_directory(temporary)
        step(f"rename to {path.name}")
        temporary.rename(path)
    except OSError as error:
        if error.errno not in TAKEN:
            raise
        return _holds(path, data)
    finally:
        remove_tree(temporary)
    sync_directory(path.parent)
    return True


def _remove_tree(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)
            for inner in path.iterdir():
                _remove_tree(inner)
            step(f"rmdir {path.name}")
            path.rmdir()
        else:
            step(f"unlink {path.name}")
            path.unlink()


def _holds(path: Path, data: bytes) -> bool:
    return exists(path) and read(path) == data


def _exists(path: Path) -> FileExistsError:
    return FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")


def _write(path: Path, data: bytes, mode: int, *, durable: bool = True) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        _hand_over(file.fileno(), path.parent)
        file.write(data)
        file.flush()
        if durable:
            os.fsync(file.fileno())


def _hand_over(made: Path | int, folder: Path) -> None:
    """Give what root made to the owner of its folder: a server that runs as that user must read it."""
    if os.geteuid() == 0:
        owner = folder.stat()
        if owner.st_uid:
            os.chown(made, owner.st_uid, owner.st_gid)


@contextlib.contextmanager
def _removed_at_end(path: Path) -> Iterator[None]:
    try:
        yield
    finally:
        with contextlib.suppress(FileNotFoundError):
            step(f"unlink {path.name.rpartition('.')[0]}")
            path.unlink()
