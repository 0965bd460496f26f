"""The engine's seats on the event loop: who may go in now, who waits and how long, who is sent away.

One `Seating` per router; `FairQueue` decides. A request that finds a seat never waits and makes nothing but
its ticket. Invariant: a ticket that was given is left once, whatever becomes of its request.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from time import monotonic

from starlette.types import Receive, Scope

from registry.entries.rights import Group
from serve.engine.steps.tags import LAST, tag
from serve.errors import Busy, ClientLeft
from serve.groups.queue import FairQueue, SeatState, SeatTicket
from serve.protocol.body import Fields
from serve.protocol.numbers import whole_number
from serve.settings import RequestLimits

WAITING_PER_SEAT = 4
"""How many may wait for each seat where nothing is set."""

BYTES_PER_TOKEN = 4
"""Of a body, where its tokens are not known yet."""

ANSWER_TOKENS = 64
"""What an answer is taken to cost until it has ended."""

OUTPUT_WEIGHT = 2
"""A token of an answer costs as much as so many of a prompt (the measure of VTC, and of its paper)."""

LONGEST_RETRY_SECONDS = 60

BATCH_LINE = "wardrobe_batch_line"
"""In a scope's state: a line of a batch, which waits as long as it takes and comes after everybody."""


class Seating:
    """Seats for `seats` requests at once (None: as many as come), under `limits`."""

    def __init__(self, seats: int | None, limits: RequestLimits, *, tags: bool) -> None:
        most = limits.max_waiting
        if most is None and seats is not None:
            most = WAITING_PER_SEAT * seats
        self.queue = FairQueue(seats, most, monotonic)
        self.wait_seconds = limits.wait_seconds
        self._tags = tags

    async def take(
        self, group: Group, fields: Fields, size: int, scope: Scope, receive: Receive, seconds: float | None
    ) -> SeatTicket:
        """Return a ticket with a seat; who finds none waits, `seconds` at most.

        `size` is the body's in bytes; `receive` gives nothing any more but that the client left.

        Raises: Busy: there is no place among those who wait, it took too long, or another group needed the
        place. ClientLeft.
        """
        seats = 1 if "n" not in fields else whole_number(fields["n"]) or 1
        cost = size / BYTES_PER_TOKEN + OUTPUT_WEIGHT * ANSWER_TOKENS * seats
        patient = BATCH_LINE in scope.get("state", ())
        ticket = self.queue.enter(group.name, group.weight, cost, seats=max(seats, 1), patient=patient)
        if ticket.standing is SeatState.OUT:
            raise self._full()
        if ticket.standing is SeatState.WAITING:
            await self._wait_for_seat(ticket, receive, seconds)
        return ticket

    async def _wait_for_seat(self, ticket: SeatTicket, receive: Receive, seconds: float | None) -> None:
        leaving = asyncio.ensure_future(receive())
        told: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        leaving.add_done_callback(lambda _: None if told.done() else told.set_exception(ClientLeft()))
        try:
            await self._wait(ticket, told, seconds)
        finally:
            leaving.cancel()

    async def aside(
        self, ticket: SeatTicket | None, ready: Awaitable[None], undo: Callable[[], None]
    ) -> None:
        """Leave a seat to others while its request waits until it is `ready`, then have one before them.

        Raises: Busy: no seat came free in time, and what had been ready was undone. Whatever `ready` raises.
        """
        if ticket is None:
            await ready
            return
        self.queue.leave(ticket, 0.0)
        await ready
        try:
            await self.keep(ticket)
        except BaseException:
            undo()
            raise

    async def keep(self, ticket: SeatTicket | None) -> None:
        """Have a seat again for a request that gave its own to others, before those who came later.

        Raises: Busy.
        """
        lost = ticket is not None and ticket.standing is SeatState.OUT
        if ticket is not None and lost and not self.queue.come_back(ticket):
            await self._wait(ticket, asyncio.get_running_loop().create_future(), None)

    async def _wait(self, ticket: SeatTicket, told: asyncio.Future[None], seconds: float | None) -> None:
        longest = self.wait_seconds if seconds is None else min(seconds, self.wait_seconds)
        ticket.told = lambda: None if told.done() else told.set_result(None)
        try:
            async with asyncio.timeout(None if ticket.patient else longest):
                await told
        except TimeoutError:
            self.queue.leave(ticket)
            fact = f"did not get to this request within {longest:g} s"
            raise self._busy(fact, "queue_timeout") from None
        except BaseException:
            self.queue.leave(ticket)
            raise
        if ticket.standing is SeatState.OUT:
            raise self._full()

    def leave(self, ticket: SeatTicket) -> None:
        """Give a seat back; what it used, where that is known, is charged in place of the estimate."""
        used = ticket.used
        # What the prefix cache had cost nothing.
        self.queue.leave(ticket, None if used is None else used[0] - used[2] + OUTPUT_WEIGHT * used[1])

    def tag(self, ticket: SeatTicket) -> int:
        """Return what the engine is told of a request's order; 0 while there is nobody to come before."""
        if not self._tags:
            return 0
        if ticket.patient:
            return LAST
        return tag(ticket.start, yields=ticket.yields) if self.queue.several else 0

    def _full(self) -> Busy:
        return self._busy(f"has {self.queue.waiting} requests waiting, as many as may", "queue_full")

    def _busy(self, fact: str, rejection: str) -> Busy:
        error = Busy("engine", fact, "try again, or ask less at once", rejection=rejection)
        seconds = math.ceil(self.queue.waiting * self.queue.seconds_per_seat)
        error.retry_after_seconds = min(max(1, seconds), LONGEST_RETRY_SECONDS)
        return error
