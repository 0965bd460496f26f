"""Versions: immutable folders with a number, each described by its manifest.

Owns `versions/<N>/` and `manifest.json`. Invariants: a version appears whole, by one rename; no number is
given twice; a folder that is not exactly what its manifest lists is not a valid version.
"""

from __future__ import annotations

import contextlib
import os
import stat
from dataclasses import asdict
from functools import partial
from pathlib import Path

from registry.errors import CorruptStore, Missing, StorageFailed
from registry.records import FileEntry, Version
from registry.spelling import spelled
from registry.storage import disk, files, reserve
from registry.storage.entry import Entry, encode
from registry.storage.hashes import Hashes
from registry.storage.root import Root
from registry.storage.syncing import Unsynced
from registry.validation.identity import digest
from registry.validation.peft import CONFIG_NAME, with_base

MANIFEST = "manifest.json"


def encode_manifest(version: Version) -> bytes:
    """Return the bytes of `manifest.json`, which knows neither the version's number nor its place."""
    return encode(
        {
            "format": 1,
            "adapter": version.adapter,
            "digest": version.digest,
            "base_fingerprint": version.base_fingerprint,
            "base_named": version.base_named,
            "chat_template_sha256": version.template_sha256,
            "created": version.created,
            "note": version.note,
            "who": version.who,
            "rank": version.rank,
            "target_modules": list(version.target_modules),
            "files": [asdict(file) for file in version.files],
        }
    )


def _read(folder: Path, number: int) -> Version:
    """Return what the manifest in `folder` says of a version.

    Raises: CorruptStore: also when it is missing; StorageFailed.
    """
    try:
        entry = Entry.read(folder / MANIFEST)
    except Missing as error:
        raise CorruptStore(str(folder / MANIFEST), "is missing", "restore it from a backup") from error
    listed = tuple(
        FileEntry(file.text("path"), file.integer("size"), file.text("sha256"))
        for file in entry.entries("files")
    )
    return Version(
        adapter=entry.text("adapter"),
        number=number,
        digest=entry.text("digest"),
        created=entry.number("created"),
        note=entry.text("note"),
        who=entry.text("who"),
        rank=entry.integer("rank"),
        target_modules=entry.texts("target_modules"),
        size_bytes=sum(file.size for file in listed),
        files=listed,
        path=folder,
        base_named=entry.optional_text("base_named"),
        base_fingerprint=entry.text("base_fingerprint"),
        template_sha256=entry.optional_text("chat_template_sha256"),
    )


class Versions:
    """The version folders of every adapter of a root, deleted ones included until they are collected."""

    def __init__(self, root: Root) -> None:
        self._root = root
        self._hashes = Hashes()

    def numbers(self, adapter: str) -> list[int]:
        """Return the numbers that have a folder, ascending."""
        return disk.numbers(self._root.versions(adapter))

    def read(self, adapter: str, number: int) -> Version:
        """Return the record of a version that has a folder.

        Raises: CorruptStore; StorageFailed.
        """
        folder = self._root.version(adapter, number)
        found = _read(folder, number)
        if found.adapter != adapter:
            raise CorruptStore(str(folder), f"is a version of {found.adapter}, not of {adapter}")
        return found

    def publish(self, adapter: str, staged: Path, number: int, unsynced: Unsynced) -> None:
        """Rename `staged`, of which files are `unsynced` yet, to `number`.

        Raises: Occupied: the number is taken; StorageFailed. `staged` is still there in both cases,
        and no empty folder is.
        """
        folder = self._root.versions(adapter)
        try:
            while True:
                files.make_directory(folder, durable=False)
                try:
                    with disk.explained(folder):
                        # Whoever made them may not have come to their fsync.
                        unsynced.add_folder(folder.parent)
                        unsynced.add_folder(folder.parent.parent)
                    files.publish_directory(staged, folder / str(number), unsynced=unsynced)
                except Missing:
                    # Another publisher failed and removed the folder that was still empty.
                    if not disk.is_folder(staged):
                        raise
                else:
                    reserve.make_folders(folder.parent)
                    return
        except StorageFailed:
            files.remove_empty(folder)
            files.remove_empty(folder.parent)
            raise

    def problem(self, version: Version, *, content: bool = True, afresh: bool = True) -> str | None:
        """Say what of a version is not as published, None when all is; with `content` its files are hashed.

        Unless `afresh`, a file that was hashed before and has not been changed since is not read.

        Raises: StorageFailed: when the files could not be read at all, which proves nothing.
        """
        try:
            self._root.contain(version.path)
            manifest = _read(version.path, version.number)
        except CorruptStore as error:
            return error.fact
        if manifest.digest != version.digest or _digest(manifest) != version.digest:
            return f"the manifest no longer describes {version.digest}"
        listed = {file.path for file in manifest.files}
        with disk.explained(version.path), os.scandir(version.path) as entries:
            extra = sorted({entry.name for entry in entries} - listed - {MANIFEST})
        if extra:
            return f"{spelled(extra[0])} is not in the manifest"
        look = partial(self._file_problem, afresh=afresh) if content else _shape_problem
        problems = (look(version.path, file) for file in manifest.files)
        return next((problem for problem in problems if problem is not None), None)

    def _file_problem(self, folder: Path, file: FileEntry, *, afresh: bool) -> str | None:
        path = folder / file.path
        try:
            if "/" in file.path or not stat.S_ISREG(disk.status(path).st_mode):
                return f"{file.path} is not a plain file of the version"
            size, sha256 = self._hashes.of(path, afresh=afresh)
        except Missing:
            return f"{file.path} is missing"
        if (size, sha256) != (file.size, file.sha256):
            published = f"published were {file.size} with {file.sha256}"
            return f"{file.path} has {size} bytes with sha256 {sha256}, {published}"
        return None

    def export(self, version: Version, target: Path, base: str) -> None:
        """Copy a version's files (not the manifest) into the new folder `target`.

        The config calls the base `base` there.

        Raises: Occupied; StorageFailed: nothing is left behind then.
        """
        temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        try:
            files.make_directory(temporary)
            for file in version.files:
                if file.path == CONFIG_NAME:
                    stored = disk.read(version.path / CONFIG_NAME)
                    files.stage(temporary / CONFIG_NAME, with_base(stored, base))
                else:
                    files.copy_new(version.path / file.path, temporary / file.path)
            with contextlib.suppress(OSError):
                target.rmdir()  # an empty folder is as good as none
            files.move(temporary, target)
        finally:
            files.remove_tree(temporary)


def _digest(manifest: Version) -> str:
    return digest(manifest.files, manifest.base_fingerprint, manifest.template_sha256)


def _shape_problem(folder: Path, file: FileEntry) -> str | None:
    """Say what can be seen without reading a file: whether it is a plain one, as long as published."""
    try:
        found = disk.status(folder / file.path)
    except Missing:
        return f"{file.path} is missing"
    if "/" in file.path or not stat.S_ISREG(found.st_mode):
        return f"{file.path} is not a plain file of the version"
    return None if found.st_size == file.size else f"{file.path} has {found.st_size} bytes, not {file.size}"
