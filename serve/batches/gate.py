"""When the next line of a batch may go in: while nobody else needs the engine.

Owns the rule (`room`, pure) and the queue of those that wait for a place. It looks at what is in flight every
few milliseconds while somebody waits, so requests of clients pay nothing for it. Invariants: places are given
in the order of asking, so batches take turns line by line; a batch that waits gets a place now and then
whatever goes on, so none waits for ever.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from time import monotonic

from serve.settings import BatchSettings

LOOK_SECONDS = 0.02
"""Between two looks at what is in flight; a place is given this much later at most."""


def room(settings: BatchSettings, *, others: int, quiet: float, waited: float) -> int:
    """Return how many lines may be in flight.

    `others` are in flight now; none was for `quiet` seconds, and no line went in for `waited`.
    """
    if others:
        return max(settings.beside, 1 if waited >= settings.patience_seconds else 0)
    return settings.alone if quiet >= settings.quiet_seconds else max(settings.beside, 1)


class Gate:
    """Gives places to lines; `inflight` says how many requests the server has, theirs included.

    `is_open` says whether the server takes work at all.
    """

    def __init__(
        self,
        settings: BatchSettings,
        inflight: Callable[[], int],
        is_open: Callable[[], bool] = lambda: True,
        clock: Callable[[], float] = monotonic,
        look_seconds: float = LOOK_SECONDS,
    ) -> None:
        self._settings, self._inflight, self._is_open = settings, inflight, is_open
        self._clock, self._look_seconds = clock, look_seconds
        self._queue: deque[object] = deque()
        self._seen = self._entered = clock() - settings.quiet_seconds
        self.inside = 0
        """How many lines are in flight."""

    async def enter(self) -> None:
        """Wait until one more may go in, and count it; `Place` takes it off again."""
        turn = object()
        self._queue.append(turn)
        try:
            while self._queue[0] is not turn or not self._has_room():  # noqa: ASYNC110 - no hook in the hot path
                await asyncio.sleep(self._look_seconds)
        finally:
            self._queue.remove(turn)
        self.inside += 1
        self._entered = self._clock()

    def _has_room(self) -> bool:
        now = self._clock()
        others = max(0, self._inflight() - self.inside)  # a line that went in is not counted there at once
        if others:
            self._seen = now
        most = room(self._settings, others=others, quiet=now - self._seen, waited=now - self._entered)
        return self.inside < most and self._is_open()


class Place:
    """One place of a gate, taken and given back by whoever holds this; giving back twice changes nothing."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._held = False

    async def take(self) -> None:
        """Wait for the place."""
        await self._gate.enter()
        self._held = True

    def give_back(self) -> None:
        """Let another line in, if this one was."""
        self._gate.inside -= self._held
        self._held = False
