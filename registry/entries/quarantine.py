"""Quarantine: why a version may not be served.

Owns `quarantine/<N>.json`. Invariant: the first reason stays; a version never leaves quarantine (its
content may be published again under a new number).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from registry.errors import CorruptStore, Missing
from registry.storage import disk, files
from registry.storage.entry import Entry, encode_claim
from registry.storage.root import Root

if TYPE_CHECKING:
    from pydantic import JsonValue


@dataclass(frozen=True, slots=True)
class QuarantineEntry:
    """Why, by whom and when (UNIX seconds) a version was put into quarantine."""

    number: int
    reason: str
    who: str
    at: float


class Quarantine:
    """The quarantined versions of every adapter of a root."""

    def __init__(self, root: Root, clock: Callable[[], float] = time.time) -> None:
        self._root = root
        self._clock = clock

    def orders(self, adapter: str) -> list[QuarantineEntry]:
        """Return every order of an adapter by number.

        Raises: StorageFailed.
        """
        found = [self.read(adapter, number) for number in disk.entry_numbers(self._folder(adapter))]
        return [order for order in found if order is not None]

    def reasons(self, adapter: str) -> dict[int, str]:
        """Return the reason of every quarantined number."""
        return {order.number: order.reason for order in self.orders(adapter)}

    def read(self, adapter: str, number: int) -> QuarantineEntry | None:
        """Return the order against a version, None when it is free.

        An order that cannot be understood stands all the same: somebody had a reason.

        Raises: StorageFailed.
        """
        try:
            entry = Entry.read(self._path(adapter, number))
            return QuarantineEntry(number, entry.text("reason"), entry.text("who"), entry.number("at"))
        except Missing:
            return None
        except CorruptStore as error:
            return QuarantineEntry(number, f"its order cannot be read: {error}", "", 0.0)

    def put(self, adapter: str, number: int, reason: str, who: str) -> bool:
        """Write the order; False when there is one already, whose reason then stays."""
        fields: dict[str, JsonValue] = {"version": number, "reason": reason, "who": who, "at": self._clock()}
        files.make_directory(self._folder(adapter))
        return files.claim(self._path(adapter, number), encode_claim(fields))

    def _folder(self, adapter: str) -> Path:
        return self._root.adapter(adapter) / "quarantine"

    def _path(self, adapter: str, number: int) -> Path:
        return self._folder(adapter) / f"{int(number)}.json"
