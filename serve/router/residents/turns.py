"""Turns: which versions have requests in the engine at once, when more are asked for than a batch can mix.

Owns the count of versions in use and the line of those that wait. Requests are admitted by version: all
that wait for one come in together, and others of it follow while nobody waits too long. Invariants: no more
versions than turns are in use at once; the version that waited longest is next; one that has waited for
`turn_seconds` has another closed, which takes no new requests and hands its turn on when its answers have
ended.
"""

from __future__ import annotations

import asyncio
from collections import deque

from serve.router.residents.slot import ResidentSlot

EXTRA = 1
"""Versions beyond a batch's that may be in use: when one ends, the next is in the engine's own queue."""


class Turns:
    """The turns of one engine; one event loop."""

    def __init__(self, slots: int, turn_seconds: float) -> None:
        self.count = slots + EXTRA
        self.turn_seconds = turn_seconds
        self.room_wanted = False
        self._busy: set[ResidentSlot] = set()
        self._line: deque[ResidentSlot] = deque()

    @property
    def waiting(self) -> int:
        """Return how many versions wait for a turn."""
        return len(self._line)

    def enter(self, slot: ResidentSlot) -> bool:
        """Count one use of a version that has a turn, or for which one is free; else return False."""
        if slot.closed and (slot.in_use or self._line or self.room_wanted):
            return False
        if not slot.in_use:
            if len(self._busy) >= self.count:
                return False
            self._begin(slot)
        slot.in_use += 1
        return True

    def leave(self, slot: ResidentSlot) -> None:
        """End one use; the last one hands the turn on."""
        slot.in_use -= 1
        if not slot.in_use:
            self._busy.remove(slot)
            self._admit_next()

    def line_up(self, slot: ResidentSlot) -> None:
        """Have a version with tickets wait for its turn; it may get it at once."""
        if slot in self._line:
            return
        self._line.append(slot)
        self._admit_next()
        if slot in self._line:
            self._grow_impatient(slot)

    def want_room(self, *, wanted: bool) -> None:
        """Say whether a version waits for a place in memory: then what is closed goes on being so."""
        self.room_wanted = wanted
        if not wanted:
            self._admit_next()

    def close_one(self) -> None:
        """Close the version that is easiest to do without: not pinned, with the fewest answers under way."""
        open_ones = [slot for slot in self._busy if not slot.closed]
        if open_ones:
            min(open_ones, key=lambda slot: (slot.pinned, slot.in_use)).closed = True

    def forget(self, slot: ResidentSlot) -> None:
        """Take a version out of the line: nobody waits for its turn any more."""
        if slot in self._line:
            self._line.remove(slot)
            self._calm(slot)
            self._admit_next()

    def hand_over(self, held: ResidentSlot, slot: ResidentSlot) -> None:
        """End the one use of `held`, and give its turn to those who wait for `slot`, unless it was closed."""
        self._busy.remove(held)
        held.in_use = 0
        if not held.closed:
            self._admit(slot)
        elif slot.tickets:
            self.line_up(slot)
        self._admit_next()

    def _admit(self, slot: ResidentSlot) -> None:
        """Count a use for each ticket of a version, and tell those who hold them."""
        tickets, slot.tickets = slot.tickets, []
        for ticket in tickets:
            if not ticket.done():
                slot.in_use += 1
                ticket.set_result(None)
        if slot.in_use:
            self._begin(slot)

    def _begin(self, slot: ResidentSlot) -> None:
        self._busy.add(slot)
        slot.closed = False

    def _admit_next(self) -> None:
        idle = [slot for slot in self._line if not slot.in_use and not (slot.closed and self.room_wanted)]
        for slot in idle[: self.count - len(self._busy)]:
            self._admit_waiting(slot)
        # Those that are in use were closed for somebody else; where nobody is waiting any more, they go on.
        if not self.room_wanted and all(slot.in_use for slot in self._line):
            for slot in list(self._line):
                self._admit_waiting(slot)

    def _admit_waiting(self, slot: ResidentSlot) -> None:
        self._line.remove(slot)
        self._calm(slot)
        self._admit(slot)

    def _grow_impatient(self, slot: ResidentSlot) -> None:
        loop = asyncio.get_running_loop()
        slot.impatient = loop.call_later(self.turn_seconds, self._lose_patience, slot)

    def _lose_patience(self, waiting: ResidentSlot) -> None:
        """Close a version for one that waits; again and again: one that was closed may answer for long."""
        if not waiting.in_use:
            self.close_one()
        self._grow_impatient(waiting)

    def _calm(self, slot: ResidentSlot) -> None:
        if slot.impatient is not None:
            slot.impatient.cancel()
            slot.impatient = None
