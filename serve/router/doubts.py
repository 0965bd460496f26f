"""Whose fault a failed answer was: the same request is asked again of another version, and thrown away.

A body can fail with any version: a grammar that derives nothing, a field that the engine cannot take. Booked
as the arm's failure, a handful of them would take a good canary back. So a failure under a rollout counts
against its arm only where another version answers the same body well: stable for the canary, where it did not
answer in the canary's place already (`serve.router.rescue`), and the base model for stable. Invariant: nobody
waits for it; a few are asked at a time, and beyond that a failure stays unexplained and counts for nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable
from time import monotonic

from serve.outcomes import Outcome
from serve.rollout.recording.evidence import REPEATED, UNKNOWN
from serve.router.exchange import Exchange
from serve.router.shadow import OPERATIONS, in_one_piece, receive_nothing, send_nowhere
from serve.router.targets import RouteTarget

MOST_AT_ONCE = 4

Carry = Callable[[Exchange], Awaitable[None]]


def verdict(witness: Outcome) -> str:
    """Return what a failure is booked as, when another version came to `witness` on the same body."""
    if witness is Outcome.OK:
        return Outcome.ENGINE_ERROR.value
    return REPEATED if witness in {Outcome.ENGINE_ERROR, Outcome.CLIENT_ERROR} else UNKNOWN


class Doubts:
    """Asks again with `carry`, which forwards an exchange and books it; one event loop.

    `counts` is told how each doubt ended: (adapter, arm, what the failure was booked as).
    """

    def __init__(
        self, carry: Carry, counts: Counter[tuple[str, str, str]], alive: Callable[[], bool]
    ) -> None:
        self._carry = carry
        self._alive = alive
        self._counts = counts
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def running(self) -> int:
        """Return how many requests are being asked again."""
        return len(self._tasks)

    def settle(self, failed: Exchange, witness: Outcome) -> None:
        """Conclude a failure by how another version answered in its place."""
        self._conclude(failed, verdict(witness))

    def examine(self, failed: Exchange, witness: RouteTarget | None) -> None:
        """Conclude a failure once `witness` was asked; without one it is the arm's own."""
        if failed.doubt is None:
            return
        if witness is None:
            self._conclude(failed, Outcome.ENGINE_ERROR.value)
        elif not self._may_ask(failed):
            self._conclude(failed, UNKNOWN)
        else:
            task = asyncio.create_task(self._ask(failed, witness), name="doubt")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _may_ask(self, failed: Exchange) -> bool:
        # What was in use when an engine died is told by its death, not by the requests that it cut.
        room = len(self._tasks) < MOST_AT_ONCE
        return room and self._alive() and failed.endpoint.operation in OPERATIONS

    def cancel(self) -> None:
        """End all that is being asked; those failures count for nothing."""
        for task in self._tasks:
            task.cancel()

    async def _ask(self, failed: Exchange, witness: RouteTarget) -> None:
        again = Exchange(
            witness,
            failed.endpoint,
            failed.scope,
            failed.headers,
            in_one_piece(failed.fields),
            failed.unit,
            receive_nothing,
            send_nowhere,
            monotonic(),
        )
        try:
            with contextlib.suppress(Exception):  # whatever it was, it is in the outcome
                await self._carry(again)
        finally:
            self._conclude(failed, verdict(again.outcome))

    def _conclude(self, failed: Exchange, outcome: str) -> None:
        if failed.doubt is not None:
            series = failed.target.series
            self._counts[series.adapter, failed.target.arm.value, outcome] += 1
            failed.conclude(outcome)
