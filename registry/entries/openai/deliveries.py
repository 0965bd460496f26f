"""Deliveries: what is sent to whom once, by whichever server of the root is first.

Owns `deliveries/<id>/<seq>.json`, the log of one message to one receiver. Invariants: the entry with the
highest seq says how it stands; sending begins with an entry of one's own, so two servers never send at once;
who died while sending is followed by another, so that a message may arrive twice after a crash, with the same
id.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from registry.errors import Missing
from registry.names import check_replica_name
from registry.storage import disk, files
from registry.storage.entry import Entry, encode_claim
from registry.storage.root import Root

if TYPE_CHECKING:
    from pydantic import JsonValue

FOLDER = "deliveries"


class DeliveryState(StrEnum):
    """How a delivery stands."""

    SENDING = "sending"
    WAITING = "waiting"  # for the next attempt
    DELIVERED = "delivered"
    GIVEN_UP = "given_up"


@dataclass(frozen=True, slots=True)
class DeliveryEntry:
    """One entry: `until` is when another may try (UNIX seconds), `attempts` how often it was sent."""

    seq: int
    state: DeliveryState
    attempts: int
    until: float
    who: str
    detail: str = ""

    @property
    def final(self) -> bool:
        """Return whether nothing more is sent."""
        return self.state in {DeliveryState.DELIVERED, DeliveryState.GIVEN_UP}


class Deliveries:
    """All deliveries of a root, as one server sees them."""

    def __init__(self, root: Root, clock: Callable[[], float] = time.time) -> None:
        self._folder = root.path / FOLDER
        self._clock = clock

    def last(self, delivery: str) -> DeliveryEntry | None:
        """Return how a delivery stands, None where nobody has begun it.

        Raises: CorruptStore; StorageFailed.
        """
        numbers = disk.entry_numbers(self._path(delivery))
        return self._read(delivery, numbers[-1]) if numbers else None

    def begin(self, delivery: str, who: str, seconds: float) -> DeliveryEntry | None:
        """Take a delivery in hand for `seconds`; None where it is done, not due, or somebody else has it.

        Raises: CorruptStore; StorageFailed.
        """
        last = self.last(delivery)
        if last is not None and (last.final or last.until > self._clock()):
            return None
        attempts = 1 if last is None else last.attempts + 1
        seq = 1 if last is None else last.seq + 1
        entry = DeliveryEntry(seq, DeliveryState.SENDING, attempts, self._clock() + seconds, who)
        return entry if self._claim(delivery, entry) else None

    def end(
        self, delivery: str, begun: DeliveryEntry, state: DeliveryState, until: float, detail: str
    ) -> None:
        """Say how the attempt that `begin` returned ended; where it took too long another may have it.

        Raises: StorageFailed.
        """
        entry = DeliveryEntry(begun.seq + 1, state, begun.attempts, until, begun.who, detail)
        self._claim(delivery, entry)

    def tidy(self, before: float) -> None:
        """Forget deliveries whose folder did not change since `before` (UNIX seconds).

        Raises: StorageFailed.
        """
        for name in disk.names(self._folder):
            try:
                changed = disk.status(self._folder / name).st_mtime
            except Missing:
                continue
            if changed < before:
                files.remove_tree(self._folder / name)

    def _claim(self, delivery: str, entry: DeliveryEntry) -> bool:
        folder = self._path(delivery)
        files.make_directory(folder)
        fields: dict[str, JsonValue] = {
            "state": entry.state,
            "attempts": entry.attempts,
            "until": entry.until,
            "who": entry.who,
            "detail": entry.detail,
            "at": self._clock(),
        }
        return files.claim(folder / f"{entry.seq}.json", encode_claim(fields))

    def _read(self, delivery: str, seq: int) -> DeliveryEntry:
        entry = Entry.read(self._path(delivery) / f"{seq}.json")
        return DeliveryEntry(
            seq,
            DeliveryState(entry.text("state")),
            entry.integer("attempts"),
            entry.number("until"),
            entry.text("who"),
            entry.text("detail"),
        )

    def _path(self, delivery: str) -> Path:
        return self._folder / check_replica_name(delivery)
