"""Files that applications upload and that jobs give back: bytes with a name, a purpose and an owner.

Owns `files/<id>/`: `content`, the bytes as they came, and `meta.json`, what is known of them. Invariants: a
file appears whole, by one rename, and never changes; one that has expired is not found, whether or not it
has been collected; what is made under an id that its maker derives (`ids`) is made once,
so that who was killed may make it again.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from registry.entries.openai.ids import ID_PATTERN, made_at, new_id
from registry.errors import CorruptStore, Missing, NotFound, Occupied
from registry.storage import disk, files
from registry.storage.entry import Entry, encode
from registry.storage.syncing import Unsynced

FOLDER, META, CONTENT = "files", "meta.json", "content"
PREFIX = "file-"
_ID = re.compile(PREFIX + ID_PATTERN)


class FilePurpose(StrEnum):
    """What a file is for; the last three are of files that the server makes."""

    FINE_TUNE = "fine-tune"
    BATCH = "batch"
    ASSISTANTS = "assistants"
    VISION = "vision"
    USER_DATA = "user_data"
    EVALS = "evals"
    FINE_TUNE_RESULTS = "fine-tune-results"
    BATCH_OUTPUT = "batch_output"
    ASSISTANTS_OUTPUT = "assistants_output"


@dataclass(frozen=True, slots=True)
class FileInfo:
    """What is known of one file; `bytes` is its size, `expires_at` UNIX seconds.

    `who` is the id of the key that it belongs to, `sha256` the hex hash of its content.
    """

    id: str
    bytes: int
    filename: str
    purpose: str
    who: str
    sha256: str
    expires_at: int | None = None

    @property
    def created_at(self) -> int:
        """Return when it was made, in whole UNIX seconds."""
        return int(made_at(self.id))

    @property
    def status(self) -> str:
        """Return `processed`: what has an id was checked before it got one."""
        return "processed"

    @property
    def status_details(self) -> str | None:
        """Return why it could not be processed: None, such a file is refused."""
        return None


class FileStore:
    """The files of one root; every call reads or writes the disk."""

    def __init__(self, root: Path, clock: Callable[[], float] = time.time) -> None:
        self._root = root
        self._folder = root / FOLDER
        self._clock = clock
        self._known: dict[str, FileInfo] = {}

    def create(
        self,
        purpose: str,
        filename: str,
        content: Iterable[bytes] | Path,
        *,
        who: str,
        lifetime_seconds: int | None = None,
        file_id: str | None = None,
    ) -> FileInfo:
        """Store `content` (a file's path, or its chunks) as a new file, and return what is known of it.

        With a `file_id` that exists, that file is returned as it is. Raises: StorageFailed: nothing is left.
        """
        if file_id is not None and disk.exists(self._folder / file_id):
            return self.info(file_id)
        staged = self.stage()
        files.make_directory(staged)
        try:
            target = staged / CONTENT
            if isinstance(content, Path):
                files.copy_new(disk.resolved(content), target)
            else:
                files.write_new(target, content)
            return self.adopt(
                staged, purpose, filename, who=who, lifetime_seconds=lifetime_seconds, file_id=file_id
            )
        finally:
            files.remove_tree(staged)

    def stage(self) -> Path:
        """Return where a new folder may be made, for `content` that is written there and given to `adopt`."""
        return self._root / "staging" / f"file-{uuid.uuid4().hex}"

    def adopt(
        self,
        staged: Path,
        purpose: str,
        filename: str,
        *,
        who: str,
        lifetime_seconds: int | None = None,
        file_id: str | None = None,
    ) -> FileInfo:
        """Make the folder of `stage`, with its `content`, a file; the folder is gone then.

        Raises: StorageFailed: the folder is still there.
        """
        name = file_id or new_id(PREFIX, self._clock())
        expires = None if lifetime_seconds is None else int(made_at(name)) + lifetime_seconds
        with disk.explained(staged), disk.open_plain(staged / CONTENT) as content, Unsynced() as unsynced:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
            info = FileInfo(name, content.tell(), filename, purpose, who, digest, expires)
            unsynced.add(content.fileno())
            files.stage(staged / META, _encode(info), unsynced=unsynced)
            files.make_directory(self._folder)
            with contextlib.suppress(Occupied):  # by who makes the same file: it is as good
                files.publish_directory(staged, self._folder / info.id, unsynced=unsynced)
        return self.info(info.id)

    def info(self, file_id: str) -> FileInfo:
        """Return what is known of a file.

        Raises: NotFound: also for one that has expired; CorruptStore; StorageFailed.
        """
        found = self._read(file_id)
        if found is None or self._is_expired(found):
            raise NotFound("No such File object", file_id, param="id")
        return found

    def content(self, file_id: str) -> Path:
        """Return where the bytes of a file lie; whoever has it open keeps them when it is deleted.

        Raises: NotFound; CorruptStore; StorageFailed.
        """
        return self._folder / self.info(file_id).id / CONTENT

    def list(self, *, who: str | None = None, purpose: str | None = None) -> list[FileInfo]:
        """Return the files of a key (or all) with a purpose (or any), newest first.

        One that cannot be read is left out. Raises: StorageFailed.
        """
        every = self._every()
        found = [
            info
            for info in every
            if who in {None, info.who} and purpose in {None, info.purpose} and not self._is_expired(info)
        ]
        return sorted(found, key=lambda info: info.id, reverse=True)

    def delete(self, file_id: str) -> None:
        """Remove a file for good; it needs no room.

        Raises: NotFound; StorageFailed.
        """
        folder = self._folder / self.info(file_id).id
        gone = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.tmp")
        try:
            files.move(folder, gone)
        except Missing as error:
            raise NotFound("No such File object", file_id, param="id") from error
        self._known.pop(file_id, None)
        files.remove_tree(gone)

    def outlived(self, now: float) -> Sequence[Path]:
        """Return the folders of files that have expired at `now` (UNIX seconds).

        Raises: StorageFailed.
        """
        expired = [one for one in self._every() if one.expires_at is not None and one.expires_at <= now]
        return sorted(self._folder / info.id for info in expired)

    def _every(self) -> Iterable[FileInfo]:
        names = disk.names(self._folder)
        self._known = {name: self._known[name] for name in names if name in self._known}
        found = []
        for name in names:
            with contextlib.suppress(CorruptStore):
                if (info := self._read(name)) is not None:
                    found.append(info)
        return found

    def _read(self, file_id: str) -> FileInfo | None:
        """Return a file that is there; what was read once is not parsed again, as it never changes."""
        if _ID.fullmatch(file_id) is None:
            return None
        path = self._folder / file_id / META
        known = self._known.get(file_id)
        if known is not None and disk.exists(path):
            return known
        try:
            info = _decode(file_id, Entry.read(path))
        except Missing:
            return None
        self._known[file_id] = info
        return info

    def _is_expired(self, info: FileInfo) -> bool:
        return info.expires_at is not None and info.expires_at <= self._clock()


def _encode(info: FileInfo) -> bytes:
    return encode(
        {
            "id": info.id,
            "bytes": info.bytes,
            "filename": info.filename,
            "purpose": info.purpose,
            "who": info.who,
            "sha256": info.sha256,
            "expires_at": info.expires_at,
        }
    )


def _decode(file_id: str, entry: Entry) -> FileInfo:
    return FileInfo(
        file_id,
        entry.integer("bytes"),
        entry.text("filename"),
        entry.text("purpose"),
        entry.text("who"),
        entry.text("sha256"),
        entry.optional_integer("expires_at"),
    )
