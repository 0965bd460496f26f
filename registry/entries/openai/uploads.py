"""Uploads in parts: what a client sends piece by piece, until it is one file or is given up.

Owns `uploads/<id>/`: `upload.json`, what is to come; `parts/<id>`, what has come; `end.json`, how it ended.
Invariants: the end is claimed once, by completing or by cancelling; a completed upload has one file, whoever
was killed meanwhile; one that has not ended in its hour is expired, and collected.
"""

from __future__ import annotations

import os
import re
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from hashlib import md5
from pathlib import Path

from registry.entries.openai.files import PREFIX as FILE_PREFIX
from registry.entries.openai.files import FileInfo, FileStore
from registry.entries.openai.ids import ID_PATTERN, derived_id, made_at, new_id
from registry.errors import Conflict, Missing, NotFound, UsageError
from registry.storage import disk, files
from registry.storage.entry import Entry, encode, encode_claim

LIFETIME_SECONDS = 3_600
"""How long an upload may take, as at OpenAI."""

_FOLDER, _UPLOAD, _END, _PARTS = "uploads", "upload.json", "end.json", "parts"
_PREFIX, _PART_PREFIX = "upload_", "part_"
_ID = re.compile(_PREFIX + ID_PATTERN)
_PART = re.compile(_PART_PREFIX + ID_PATTERN)
_CHUNK_BYTES = 1024 * 1024


class UploadStatus(StrEnum):
    """Where an upload stands."""

    PENDING = "pending"
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class UploadInfo:
    """An upload: `size` is the bytes that its parts will have, `lifetime_seconds` that of the file."""

    id: str
    filename: str
    purpose: str
    size: int
    mime_type: str
    owner: str
    lifetime_seconds: int | None
    status: UploadStatus
    file_id: str | None = None

    @property
    def created_at(self) -> int:
        """Return when it began, in whole UNIX seconds."""
        return int(made_at(self.id))

    @property
    def ends_at(self) -> int:
        """Return when it expires, in whole UNIX seconds."""
        return self.created_at + LIFETIME_SECONDS


class UploadStore:
    """The uploads of one root; every call reads or writes the disk."""

    def __init__(self, root: Path, store: FileStore, clock: Callable[[], float] = time.time) -> None:
        self._root = root
        self._folder = root / _FOLDER
        self._files = store
        self._clock = clock

    def begin(
        self,
        filename: str,
        purpose: str,
        size: int,
        mime_type: str,
        *,
        owner: str,
        lifetime_seconds: int | None = None,
    ) -> UploadInfo:
        """Begin an upload.

        Raises: StorageFailed.
        """
        name = new_id(_PREFIX, self._clock())
        staged = self._root / "staging" / f"upload-{uuid.uuid4().hex}"
        document = encode(
            {
                "filename": filename,
                "purpose": purpose,
                "bytes": size,
                "mime_type": mime_type,
                "who": owner,
                "lifetime_seconds": lifetime_seconds,
            }
        )
        try:
            files.make_directory(staged / _PARTS)
            files.stage(staged / _UPLOAD, document)
            files.make_directory(self._folder)
            files.move(staged, self._folder / name)
        finally:
            files.remove_tree(staged)
        return self.find(name)

    def find(self, upload_id: str) -> UploadInfo:
        """Return an upload.

        Raises: NotFound; CorruptStore; StorageFailed.
        """
        if _ID.fullmatch(upload_id) is None:
            raise _unknown(upload_id)
        folder = self._folder / upload_id
        try:
            entry = Entry.read(folder / _UPLOAD)
        except Missing as error:
            raise _unknown(upload_id) from error
        status, file_id = self._status(upload_id)
        return UploadInfo(
            upload_id,
            entry.text("filename"),
            entry.text("purpose"),
            entry.integer("bytes"),
            entry.text("mime_type"),
            entry.text("who"),
            entry.optional_integer("lifetime_seconds"),
            status,
            file_id,
        )

    def part_folder(self) -> Path:
        """Return where a new folder may be made for the bytes of a part."""
        return self._root / "staging" / f"part-{uuid.uuid4().hex}"

    def add(self, upload_id: str, received: Path) -> str:
        """Add the file `received`, which is moved, as a part, and return the part's id.

        Raises: NotFound; Conflict: the upload has ended; UsageError: more than was announced; StorageFailed.
        """
        upload = self._pending(upload_id)
        parts = self._folder / upload_id / _PARTS
        sizes = (disk.status(parts / name).st_size for name in disk.names(parts))
        here = sum(sizes) + disk.status(received).st_size
        # A part may be sent again, whose first copy is then not named; twice what was announced is too much.
        if here > 2 * upload.size:
            fact = f"its parts would have {here} bytes, and {upload.size} were announced"
            raise UsageError(f"Upload {upload_id}", fact, "cancel it and begin another", param="data")
        name = new_id(_PART_PREFIX, self._clock())
        with disk.explained(received), disk.open_plain(received) as file:
            os.fsync(file.fileno())
        try:
            files.move(received, parts / name)
        except Missing as error:
            raise _ended(upload_id, UploadStatus.CANCELLED) from error
        return name

    def complete(
        self, upload_id: str, part_ids: Sequence[str], digest: str | None, check: Callable[[Path], None]
    ) -> tuple[UploadInfo, FileInfo]:
        """Put the parts together, in this order, and return the upload and its file.

        `digest` is the hex MD5 that they must have; `check` gets the path of what they give, and may refuse
        it. Doing it again gives the same file. Raises: NotFound: also for a part; Conflict: it was cancelled,
        or has expired; UsageError: size or MD5 differ; whatever `check` raises; StorageFailed.
        """
        upload = self.find(upload_id)
        file_id = derived_id(FILE_PREFIX, made_at(upload_id), upload_id, *part_ids)
        if upload.status is UploadStatus.COMPLETED and upload.file_id == file_id:
            return upload, self._files.info(file_id)
        self._pending(upload_id)
        made = self._join(upload, part_ids, digest, check, file_id)
        ended = self._end(upload_id, UploadStatus.COMPLETED, file_id)
        if ended != (UploadStatus.COMPLETED, file_id):  # somebody else was faster, and has another end
            self._files.delete(file_id)
            raise _ended(upload_id, ended[0])
        return self.find(upload_id), made

    def cancel(self, upload_id: str) -> UploadInfo:
        """Give an upload up; its parts are removed.

        Raises: NotFound; Conflict: it has ended in another way; StorageFailed.
        """
        if self.find(upload_id).status is not UploadStatus.CANCELLED:
            self._pending(upload_id)
            status, _ = self._end(upload_id, UploadStatus.CANCELLED, None)
            if status is not UploadStatus.CANCELLED:
                raise _ended(upload_id, status)
        return self.find(upload_id)

    def outlived(self, now: float) -> list[Path]:
        """Return the folders of uploads whose hour was over at `now` (UNIX seconds).

        Raises: StorageFailed.
        """
        names = [name for name in disk.names(self._folder) if _ID.fullmatch(name)]
        return [self._folder / name for name in names if made_at(name) + LIFETIME_SECONDS <= now]

    def _status(self, upload_id: str) -> tuple[UploadStatus, str | None]:
        try:
            entry = Entry.read(self._folder / upload_id / _END)
        except Missing:
            over = made_at(upload_id) + LIFETIME_SECONDS <= self._clock()
            return (UploadStatus.EXPIRED if over else UploadStatus.PENDING), None
        return UploadStatus(entry.text("status")), entry.optional_text("file_id")

    def _pending(self, upload_id: str) -> UploadInfo:
        upload = self.find(upload_id)
        if upload.status is not UploadStatus.PENDING:
            raise _ended(upload_id, upload.status)
        return upload

    def _join(
        self,
        upload: UploadInfo,
        part_ids: Sequence[str],
        digest: str | None,
        check: Callable[[Path], None],
        file_id: str,
    ) -> FileInfo:
        folder = self._folder / upload.id / _PARTS
        paths = [folder / name for name in part_ids if _PART.fullmatch(name) and disk.exists(folder / name)]
        if len(paths) != len(part_ids):
            missing = next(name for name in part_ids if folder / name not in paths)
            raise NotFound("No such part", missing[:100], f"of {upload.id}", param="part_ids")
        if (size := sum(disk.status(path).st_size for path in paths)) != upload.size:
            fact = f"the parts have {size} bytes, and {upload.size} were announced"
            raise UsageError(f"Upload {upload.id}", fact, param="part_ids")
        staged, found = self._files.stage(), md5(usedforsecurity=False)
        files.make_directory(staged)
        try:
            files.write_new(staged / "content", _hashing(_chunks(paths), found.update))
            if digest is not None and found.hexdigest() != digest.lower():
                fact = f"the MD5 of the parts is {found.hexdigest()}, not {digest[:64]}"
                raise UsageError(f"Upload {upload.id}", fact, param="md5")
            check(staged / "content")
            return self._files.adopt(
                staged,
                upload.purpose,
                upload.filename,
                who=upload.owner,
                lifetime_seconds=upload.lifetime_seconds,
                file_id=file_id,
            )
        finally:
            files.remove_tree(staged)

    def _end(
        self, upload_id: str, status: UploadStatus, file_id: str | None
    ) -> tuple[UploadStatus, str | None]:
        """Claim the end, and return the one that holds; the parts are needed no longer."""
        path = self._folder / upload_id / _END
        files.claim(path, encode_claim({"status": status, "file_id": file_id}))
        found = self._status(upload_id)
        files.remove_tree(self._folder / upload_id / _PARTS)
        return found


def _chunks(paths: Sequence[Path]) -> Iterator[bytes]:
    for path in paths:
        with disk.explained(path), disk.open_plain(path) as file:
            while chunk := file.read(_CHUNK_BYTES):
                yield chunk


def _hashing(chunks: Iterator[bytes], update: Callable[[bytes], object]) -> Iterator[bytes]:
    for chunk in chunks:
        update(chunk)
        yield chunk


def _unknown(upload_id: str) -> NotFound:
    return NotFound("No such Upload object", upload_id[:100], param="upload_id")


def _ended(upload_id: str, status: UploadStatus) -> Conflict:
    error = Conflict(f"Upload {upload_id}", f"is {status}", param="upload_id")
    error.http_status = 400  # OpenAI's clients send a 409 again
    return error
