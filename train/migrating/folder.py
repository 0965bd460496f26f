"""The folder of a migration: what was fetched, recorded, prepared and done, each whole or absent.

Owns every name in it. Invariants: a file appears by one rename, so a kill at any moment leaves the one before
or the one after; what is there is never fetched, asked or made again; one process at a time works in it.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.errors import Conflict, CorruptStore, DiskFull, StorageFailed, WardrobeError
from registry.storage import disk, files
from train.migrating.exported import FILES, JOBS, ExportedFolder, encode_jobs
from train.migrating.interface import JobDocument, plain_id

if TYPE_CHECKING:
    from pydantic import JsonValue

_LOCK = ".lock"
_GONE = ".gone"


@dataclass(frozen=True, slots=True)
class MigratedJob:
    """The folder of one job; its files are named here and nowhere else."""

    id: str
    folder: Path

    @property
    def train(self) -> Path:
        """Return the rows that are trained on, where they are not the fetched file itself."""
        return self.folder / "train.jsonl"

    @property
    def held_out(self) -> Path:
        """Return the rows that are held out."""
        return self.folder / "held-out.jsonl"

    @property
    def items(self) -> Path:
        """Return the held-out rows as questions, in the order in which they are asked."""
        return self.folder / "items.jsonl"

    @property
    def suite(self) -> Path:
        """Return the suite over these questions."""
        return self.folder / "suite.yaml"

    @property
    def config(self) -> Path:
        """Return the training config, which people may change."""
        return self.folder / "config.yaml"

    @property
    def answers(self) -> Path:
        """Return the old model's answers, a line each."""
        return self.folder / "answers.jsonl"

    @property
    def log(self) -> Path:
        """Return what the training said."""
        return self.folder / "train.log"

    @property
    def gate(self) -> Path:
        """Return the folder of the answers that were judged, with a page for people."""
        return self.folder / "gate"

    def record(self, name: str) -> dict[str, Any] | None:
        """Return what a step left (`version`, `verdict`, `served`, `problem`), None before it was done.

        Raises: CorruptStore; StorageFailed.
        """
        path = self._record(name)
        if not disk.exists(path):
            return None
        found = _parsed(disk.read(path))
        if not isinstance(found, dict):
            raise CorruptStore(str(path), "is not JSON", "remove it: the step is done again")
        return found

    def keep(self, name: str, facts: Mapping[str, JsonValue]) -> None:
        """Keep what a step found.

        Raises: StorageFailed.
        """
        files.make_directory(self.folder)
        files.replace(self._record(name), json.dumps(facts, indent=1).encode())

    def forget(self, name: str) -> None:
        """Forget what a step left.

        Raises: StorageFailed.
        """
        files.remove(self._record(name))

    def put(self, path: Path, chunks: Iterable[bytes]) -> None:
        """Put a file of this folder in its place, whole.

        Raises: StorageFailed; whatever `chunks` raises.
        """
        files.make_directory(path.parent)
        put_whole(path, chunks)

    def rows(self, path: Path) -> list[dict[str, Any]]:
        """Return the lines of a file of this folder, without one that a kill tore; none where it is missing.

        Raises: StorageFailed.
        """
        if not disk.exists(path):
            return []
        parsed = (_parsed(line) for line in disk.read(path).splitlines())
        return [one for one in parsed if isinstance(one, dict)]

    def _record(self, name: str) -> Path:
        return self.folder / f"{name}.json"


class MigrationFolder:
    """All of a migration; made when the first thing is kept in it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Be the only one that works in it.

        Raises: Conflict: another process does; StorageFailed; whatever the block raises.
        """
        files.make_directory(self.path)
        try:
            descriptor = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StorageFailed(
                str(self.path), f"cannot be written ({error.strerror})", "choose another --out"
            ) from error
        try:
            self._lock(descriptor)
            yield
        except DiskFull as error:
            raise self.explained(error) from error
        finally:
            os.close(descriptor)

    def _lock(self, descriptor: int) -> None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Conflict(
                str(self.path), "another `wardrobe migrate` works in it", "wait for it, or end it"
            ) from None

    def explained(self, error: WardrobeError) -> WardrobeError:
        """Return the error as a person has to read it: of a full disk, whose disk it is."""
        if not isinstance(error, DiskFull) or not error.subject.startswith(str(self.path)):
            return error
        return DiskFull(str(self.path), "there is no room left", "make room, then run the same command again")

    def jobs(self) -> list[JobDocument]:
        """Return the jobs that were listed before.

        Raises: UsageError: the list was damaged.
        """
        return ExportedFolder(self.path).jobs() if disk.exists(self.path / JOBS) else []

    def keep_jobs(self, listed: list[JobDocument]) -> list[JobDocument]:
        """Keep what is listed now, beside what was listed before and is not any more; return all of it.

        Raises: StorageFailed.
        """
        now = {str(one["id"]) for one in listed}
        found = [*listed, *(one for one in self.jobs() if str(one["id"]) not in now)]
        files.make_directory(self.path)
        files.replace(self.path / JOBS, encode_jobs(found))
        return found

    def job(self, id: str) -> MigratedJob:  # noqa: A002  the word of the API
        """Return the folder of a job.

        Raises: UsageError: the id is none.
        """
        name = plain_id(id, "job")
        return MigratedJob(name, self.path / name)

    def file(self, id: str, suffix: str) -> Path:  # noqa: A002  the word of the API
        """Return where a file of the account is kept.

        Raises: UsageError: the id is none.
        """
        return self.path / FILES / f"{plain_id(id, 'file')}{suffix}"

    def keep_file(self, path: Path, chunks: Iterable[bytes]) -> None:
        """Keep a file of the account.

        Raises: StorageFailed; whatever `chunks` raises.
        """
        files.make_directory(path.parent)
        put_whole(path, chunks)

    def mark_gone(self, path: Path) -> None:
        """Note that the account has a file no more, so that it is not asked for again.

        Raises: StorageFailed.
        """
        files.make_directory(path.parent)
        put_whole(path.with_name(path.name + _GONE), [])

    def is_gone(self, path: Path) -> bool:
        """Tell whether the account had a file no more.

        Raises: StorageFailed.
        """
        return disk.exists(path.with_name(path.name + _GONE))


def put_whole(path: Path, chunks: Iterable[bytes]) -> None:
    """Write a file beside `path`, where nothing is, and rename it there.

    Raises: StorageFailed; whatever `chunks` raises.
    """
    partial = path.with_name(f".{path.name}.partial")
    files.remove(partial)
    try:
        files.write_new(partial, chunks)
        files.move(partial, path)
    except BaseException:
        # What a full disk or a broken connection left is of no use, and its room is needed.
        with contextlib.suppress(StorageFailed):
            files.remove(partial)
        raise


def decoded_result(content: bytes) -> bytes:
    """Return a result file as CSV: OpenAI gives it base64-encoded, others plainly."""
    if b"," in content:
        return content
    try:
        found = base64.b64decode(b"".join(content.split()), validate=True)
    except binascii.Error:
        return content
    return found if b"," in found else content


def _parsed(data: bytes) -> object:
    try:
        return json.loads(data)
    except ValueError:
        return None
