"""Writes the store's files, with `registry.storage.placing`: every change is one atomic step.

Owns fsync, rename, link and trash; knows nothing of adapters. Invariants: a reader sees
the old state or the new one, whatever step the writer died at; a name that begins with a dot is unfinished
work and no reader looks at it; nothing is written where the opened root is not (`registry.storage.anchor`);
nothing but our own errors is raised. `registry.storage.disk` reads what this module writes.

`watch_steps` is the seam of the crash tests: the callback runs before every mutating step, and may kill
the process there or raise an `OSError` in place of the step.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from registry.storage import anchor, placing
from registry.storage.disk import ENTRY_FILE, NO_ROOM, entry_numbers, exists, explained, open_plain, read
from registry.storage.placing import beside, hand_over, place, write
from registry.storage.renaming import NOT_KNOWN, rename_new
from registry.storage.syncing import Unsynced, sync_folders

step, watch_steps = placing.step, placing.watch_steps
PUBLIC_MODE = 0o444
SECRET_MODE = 0o600
_CHUNK_BYTES = 1024 * 1024
# What a file system answers that has no hard links.
NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})
TAKEN = frozenset({errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR, errno.EISDIR})


def make_directory(path: Path, *, mode: int = 0o777, durable: bool = True) -> None:
    """Make `path` and what is missing above it, durably unless the caller syncs the folders above himself.

    Raises: StorageFailed.
    """
    anchor.check(path)
    with explained(path):
        if path.is_dir():
            return
    make_directory(path.parent, durable=durable)
    with explained(path):
        step(f"mkdir {path.name}")
        try:
            path.mkdir(mode=mode)
        except FileExistsError:
            if not path.is_dir():  # else somebody else was faster
                raise
        else:
            hand_over(path, path.parent)
        if durable:
            sync_directory(path.parent)


def stage(path: Path, data: bytes, *, unsynced: Unsynced | None = None) -> None:
    """Write a new file in a folder that no reader looks at yet; fsync it, or leave that to `unsynced`.

    Raises: Occupied; StorageFailed.
    """
    anchor.check(path)
    with explained(path):
        step(f"write {path.name}")
        write(path, data, 0o644, unsynced=unsynced)


def copy_new(
    source: Path,
    target: Path,
    *,
    mode: int = 0o644,
    head: bytes = b"",
    skip_bytes: int = 0,
    unsynced: Unsynced | None = None,
) -> tuple[int, str]:
    """Copy `source` (no symlink) to a new file, and return its size and hex sha256.

    It is fsynced, or left to `unsynced`. `head` is written in place of the source's first `skip_bytes`.
    Raises: Occupied; StorageFailed.
    """
    anchor.check(target)
    with explained(target), open_plain(source) as reader:
        step(f"copy {target.name}")
        reader.seek(skip_bytes)
        chunks = itertools.chain((head,), iter(lambda: reader.read(_CHUNK_BYTES), b""))
        return _write_new(target, chunks, mode, unsynced)


def write_new(target: Path, chunks: Iterable[bytes]) -> tuple[int, str]:
    """Write `chunks` to a new file, fsynced, and return its size and hex sha256.

    Raises: Occupied; StorageFailed; whatever `chunks` raises.
    """
    anchor.check(target)
    with explained(target):
        step(f"write {target.name}")
        return _write_new(target, chunks, 0o644, None)


def replace(path: Path, data: bytes, *, mode: int = 0o644, durable: bool = True) -> None:
    """Put `data` at `path`, whatever was there, in one step; `durable=False` leaves out the fsyncs.

    Raises: StorageFailed: the old content is then still there.
    """
    anchor.check(path)

    def put(written: Path) -> None:
        step(f"rename to {path.name}")
        written.rename(path)
        if durable:
            sync_directory(path.parent)

    with explained(path):
        place(path, data, mode, put, put, durable=durable)


def rewrite(path: Path, data: bytes) -> None:
    """Overwrite a file in the blocks that it has, which needs no room; a reader may see it half done.

    Raises: DiskFull: its blocks do not hold `data`; StorageFailed.
    """
    anchor.check(path)
    with explained(path):
        placing.rewrite(path, data)


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
                hand_over(file.fileno(), path.parent)
            torn = end > 0 and os.pread(file.fileno(), 1, end - 1) != b"\n"
            file.write(b"\n" + lines if torn else lines)
            file.flush()
            os.fsync(file.fileno())


def touch(path: Path) -> None:
    """Put a new empty file at `path` whose time and inode no earlier one had; not fsynced.

    Where there is no room for it, one that is there gets a new time, and its folder with it.

    Raises: StorageFailed.
    """
    anchor.check(path)
    # The kernel stamps by its tick (4 ms), within which two changes would look like one.
    now = time.time_ns()

    def put(written: Path) -> None:
        os.utime(written, ns=(now, now))
        step(f"rename to {path.name}")
        written.rename(path)

    with explained(path):
        try:
            place(path, b"", 0o644, put, durable=False)
        except OSError as error:
            if error.errno not in NO_ROOM or not path.exists():
                raise
            for stamped in (path, path.parent):
                os.utime(stamped, ns=(now, now))


def claim(path: Path, data: bytes, *, mode: int = PUBLIC_MODE) -> bool:
    """Put `data` at `path` unless something is there; return whether this call did it.

    `data` must hold a token that no other writer has: NFS may report that a link exists when it is our
    own. Where hard links are missing the entry is a directory of the same name with one file in it, so
    that writers of both kinds still exclude each other.

    Raises: StorageFailed.
    """
    anchor.check(path)

    def link(written: Path) -> bool:
        try:
            step(f"link {path.name}")
            os.link(written, path)
        except OSError as error:
            return _unclaimed(error, path, data, mode)
        sync_directory(path.parent)
        return True

    def rename(drawn: Path) -> bool:
        # A link takes an inode on tmpfs.
        try:
            step(f"rename to {path.name}")
            rename_new(drawn, path)
        except OSError as error:
            return link(drawn) if error.errno in NOT_KNOWN else _unclaimed(error, path, data, mode)
        sync_directory(path.parent)
        return True

    with explained(path):
        return place(path, data, mode, link, rename)


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


def publish_directory(staged: Path, target: Path, *, unsynced: Unsynced | None = None) -> None:
    """Rename the finished folder `staged` to `target`, then make it read-only.

    What is `unsynced`, and the names in `staged`, are durable before the rename.

    Raises: Occupied: when `target` exists; StorageFailed.
    """
    anchor.check(target)
    with explained(target):
        waiting = Unsynced() if unsynced is None else unsynced
        waiting.add_folder(staged)
        waiting.sync()
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
        sync_folders(target.parent, source.parent)


def remove(path: Path) -> None:
    """Remove a file or an entry; one that is gone is not an error.

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
    """Remove a file or a whole folder, read-only ones too; what is gone is not an error. It needs no room.

    Raises: StorageFailed.
    """
    anchor.check(path)
    with explained(path):
        _remove_tree(path)


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


def _write_new(
    target: Path, chunks: Iterable[bytes], mode: int, unsynced: Unsynced | None
) -> tuple[int, str]:
    digest, size = hashlib.sha256(), 0
    with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as writer:
        hand_over(writer.fileno(), target.parent)
        for chunk in chunks:
            digest.update(chunk)
            writer.write(chunk)
            size += len(chunk)
        writer.flush()
        if unsynced is None:
            os.fsync(writer.fileno())
        else:
            unsynced.add(writer.fileno())
    return size, digest.hexdigest()


def _unclaimed(error: OSError, path: Path, data: bytes, mode: int) -> bool:
    if error.errno in NO_LINKS:
        return _claim_by_directory(path, data, mode)
    if error.errno not in TAKEN:
        raise error
    return _holds(path, data)


def _claim_by_directory(path: Path, data: bytes, mode: int) -> bool:
    # The folder is filled before it is renamed: claiming first and filling later would leave an empty
    # entry after a crash, and renaming onto an empty folder would succeed.
    temporary = beside(path)
    try:
        step(f"mkdir temporary of {path.name}")
        temporary.mkdir()
        hand_over(temporary, path.parent)
        step(f"write temporary of {path.name}")
        write(temporary / ENTRY_FILE, data, mode)
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
