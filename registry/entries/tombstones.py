"""Tombstones: a deleted number is never used again.

Owns `tombstones/<N>.json`. Invariant: a tombstone is void while an alias points to its version, so that a
delete and an alias move that raced can never leave an alias without its version (a delete that sees an
alias after its write takes the tombstone back; only a crash in between leaves one that is void).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from registry.errors import Missing
from registry.records import Version
from registry.storage import disk, files
from registry.storage.entry import Entry, encode_claim
from registry.storage.root import Root

if TYPE_CHECKING:
    from pydantic import JsonValue


@dataclass(frozen=True, slots=True)
class Tombstone:
    """Who deleted a version and when (UNIX seconds), and what its manifest said of its publication.

    The manifest goes with the files; the tombstone keeps its part of the history.
    """

    number: int
    digest: str
    who: str
    at: float
    published_by: str
    published_at: float
    note: str


class Tombstones:
    """The tombstones of every adapter of a root."""

    def __init__(self, root: Root, clock: Callable[[], float] = time.time) -> None:
        self._root = root
        self._clock = clock

    def numbers(self, adapter: str) -> list[int]:
        """Return every number with a tombstone, void ones included, ascending."""
        return disk.entry_numbers(self._folder(adapter))

    def effective(self, adapter: str, aliased: Iterable[int]) -> set[int]:
        """Return the numbers that are deleted, given those that an alias points to."""
        return set(self.numbers(adapter)) - set(aliased)

    def read(self, adapter: str, number: int) -> Tombstone | None:
        """Return the tombstone of a version, void or not.

        Raises: CorruptStore; StorageFailed.
        """
        try:
            entry = Entry.read(self._path(adapter, number))
        except Missing:
            return None
        return Tombstone(
            number=number,
            digest=entry.text("digest"),
            who=entry.text("who"),
            at=entry.number("at"),
            published_by=entry.text("published_by"),
            published_at=entry.number("published_at"),
            note=entry.text("note"),
        )

    def exists(self, adapter: str, number: int) -> bool:
        """Return whether a version has a tombstone, void or not."""
        return disk.exists(self._path(adapter, number))

    def put(self, adapter: str, number: int, version: Version | None, who: str) -> bool:
        """Write the tombstone of a version (None: its manifest is broken); False if there is one now."""
        fields: dict[str, JsonValue] = {
            "version": number,
            "digest": version.digest if version else "",
            "who": who,
            "at": self._clock(),
            "published_by": version.who if version else "",
            "published_at": version.created if version else 0.0,
            "note": version.note if version else "",
        }
        files.make_directory(self._folder(adapter))
        return files.claim(self._path(adapter, number), encode_claim(fields))

    def take_back(self, adapter: str, number: int) -> None:
        """Remove the tombstone that this process just wrote, because an alias was faster."""
        files.remove(self._path(adapter, number))

    def _folder(self, adapter: str) -> Path:
        return self._root.adapter(adapter) / "tombstones"

    def _path(self, adapter: str, number: int) -> Path:
        return self._folder(adapter) / f"{int(number)}.json"
