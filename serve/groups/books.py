"""The books of usage on the disk, and what this replica learns there, off the hot path.

Owns when what is read and written. Invariants: what was counted is on the disk `BOOKS_SECONDS` later, and at
the end of the server; nothing is written of a day before what was written of it earlier has been read; a
disk that takes nothing costs no answer, and the lines wait in memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from pathlib import Path

from registry.entries.usage.book import UsageBook, UsageReader
from registry.entries.usage.rows import UsageRow, day_of
from registry.errors import CorruptStore, StorageFailed
from registry.records import Heartbeat
from serve.groups.accounts import DAY_SECONDS
from serve.groups.admission import Admission

BOOKS_SECONDS = 2.0
"""Between two turns: so much usage is lost by a kill, and so late others hear of it."""

LIMITS_SECONDS = 0.5
"""Between two bookings of what answers under way have used."""


class UsageBooks:
    """Keeps the books of one replica; `replicas` reads the heartbeats of the root."""

    def __init__(
        self,
        admission: Admission,
        root: Path,
        replica: str,
        replicas: Callable[[], list[tuple[Heartbeat, bool]]],
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._admission = admission
        self._replica = replica
        self._book, self._reader = UsageBook(root, replica), UsageReader(root)
        self._replicas = replicas
        self._wall = wall
        self._unread: set[str] = set()

    async def begin(self) -> None:
        """Go on from what this replica wrote today, and learn who else serves.

        What cannot be read now is no reason not to serve; it is read before anything is written.
        """
        self._begin_day()
        with contextlib.suppress(StorageFailed):
            await self._read_own()
            await self._look()

    def note(self) -> None:
        """Book what answers under way have used so far, and begin the day when it is one."""
        self._admission.advance()
        if day_of(self._wall()) != self._admission.ledger.day:
            self._begin_day()

    async def turn(self) -> None:
        """Learn who lives and what they used, and write what was used here.

        Raises: StorageFailed.
        """
        await self.write()
        if self._admission.limited:
            await self._look()

    async def write(self) -> None:
        """Write what was counted since the last writing.

        Raises: StorageFailed: it is written later.
        """
        await self._read_own()
        ledger = self._admission.ledger
        waiting = ledger.take_changed()
        try:
            while waiting:
                await asyncio.to_thread(self._book.put, *waiting[0])
                del waiting[0]
        finally:
            for day, _ in waiting:
                ledger.put_back(day)

    async def _read_own(self) -> None:
        while self._unread:
            day = min(self._unread)
            rows: list[UsageRow] = []
            # One that is broken is told by whoever reads the books; the day goes on without it.
            with contextlib.suppress(CorruptStore):
                rows = await asyncio.to_thread(self._book.kept, day)
            self._unread.discard(day)
            self._admission.go_on(day, rows)

    async def _look(self) -> None:
        self._admission.share(await asyncio.to_thread(self._alive))
        if self._admission.limits_days:
            day = self._admission.ledger.day
            found = await asyncio.to_thread(lambda: self._reader.day(day, without=self._replica))
            self._admission.hear(day, found.rows)

    def _alive(self) -> set[str]:
        return {beat.replica for beat, alive in self._replicas() if alive}

    def _begin_day(self) -> None:
        now = self._wall()
        day = day_of(now)
        if self._admission.begin_day(day, DAY_SECONDS - now % DAY_SECONDS):
            self._unread.add(day)
