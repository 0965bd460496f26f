"""The seats of this server's engine on its event loop: who may go in now, who waits and how long, who is sent away.

One `Seating` per router; `FairQueue` decides. A request that finds a seat never waits and makes nothing but its
ticket. Invariant: a ticket that was given is left once, whatever becomes of its request.
"""

from __future__ import annotations

import asyncio
import math
from time import monotonic

from serve.errors import Busy
from serve.groups.queue import FairQueue, SeatTicket, Standing
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


class Seating:
    """Seats for `seats` requests at once (None: as many as come), under `limits`."""

    def __init__(self, seats: int | None, limits: RequestLimits) -> None:
        most = limits.max_waiting
        if most is None and seats is not None:
            most = WAITING_PER_SEAT * seats
        self.queue = FairQueue(seats, most, monotonic)
        self.wait_seconds = limits.wait_seconds

    def enter(
        self, group: str, weight: float, size: int, *, seats: int = 1, patient: bool = False
    ) -> SeatTicket:
        """Take a seat or a place among those who wait; `size` is the body's in bytes.

        Raises: Busy: there is neither.
        """
        cost = size / BYTES_PER_TOKEN + OUTPUT_WEIGHT * ANSWER_TOKENS
        ticket = self.queue.enter(group, weight, cost, seats=seats, patient=patient)
        if ticket.standing is Standing.OUT:
            raise self._full()
        return ticket

    async def wait(self, ticket: SeatTicket, seconds: float | None) -> None:
        """Wait for a seat, `seconds` at most where that is less than anybody may wait.

        Raises: Busy: it took too long, or the place was needed for another group.
        """
        longest = self.wait_seconds if seconds is None else min(seconds, self.wait_seconds)
        told: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        ticket.told = lambda seated: None if told.done() else told.set_result(seated)
        try:
            async with asyncio.timeout(None if ticket.patient else longest):
                seated = await told
        except TimeoutError:
            self.queue.leave(ticket)
            fact = f"did not get to this request within {longest:g} s"
            raise self._busy(fact, "queue_timeout") from None
        except BaseException:
            self.queue.leave(ticket)
            raise
        if not seated:
            raise self._full()

    def leave(self, ticket: SeatTicket, used: tuple[int, int] | None) -> None:
        """Give a seat back; `used` are the tokens of the prompt and of the answer, where they are known."""
        self.queue.leave(ticket, None if used is None else used[0] + OUTPUT_WEIGHT * used[1])

    def _full(self) -> Busy:
        return self._busy(f"has {self.queue.waiting} requests waiting, as many as may", "queue_full")

    def _busy(self, fact: str, rejection: str) -> Busy:
        error = Busy("engine", fact, "try again, or ask less at once", rejection=rejection)
        seconds = math.ceil(self.queue.waiting * self.queue.seconds_per_seat)
        error.retry_after_seconds = min(max(1, seconds), LONGEST_RETRY_SECONDS)
        return error
