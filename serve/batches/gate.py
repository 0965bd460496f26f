"""When the next line of a batch may go in, and when one has to come out: clients need the engine first.

Owns the rule (`room`, pure), the queue of those that wait for a place, and who gives a place back when a
client comes. It looks at what is in flight every few milliseconds while a line waits or is in, so requests of
clients pay nothing for it. Invariants: places are given in the order of asking, so batches take turns line by
line; a line that goes in after `patience_seconds` without an answer is left alone, so none waits for ever.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from time import monotonic

from serve.settings import BatchSettings

LOOK_SECONDS = 0.02
"""Between two looks at what is in flight; a place is given, or asked back, this much later at most."""


def room(settings: BatchSettings, *, others: int, quiet: float, waited: float) -> int:
    """Return how many lines may be in flight.

    `others` are in flight now; none was for `quiet` seconds, and no line was answered for `waited`.
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
        self._queue: deque[Place] = deque()
        self._held: list[Place] = []
        self._watching: asyncio.Task[None] | None = None
        self._seen = clock() - settings.quiet_seconds
        self._answered = clock()

    @property
    def inside(self) -> int:
        """Return how many lines are in flight."""
        return len(self._held)

    async def enter(self, place: Place) -> None:
        """Wait until one more may go in, and let `place` have it."""
        self._queue.append(place)
        try:
            while self._queue[0] is not place or not self._has_room():  # noqa: ASYNC110 - no client tells
                await asyncio.sleep(self._look_seconds)
        finally:
            self._queue.remove(place)
        place.patient = self._waited() < self._settings.patience_seconds
        self._held.append(place)
        if self._watching is None or self._watching.done():
            self._watching = asyncio.create_task(self._watch())

    def leave(self, place: Place, *, answered: bool) -> None:
        """Take the place back; `answered` says that its line is done."""
        if place in self._held:
            self._held.remove(place)
        if answered:
            self._answered = self._clock()

    async def _watch(self) -> None:
        """Ask places back when clients come, the last ones that were given first."""
        while self._held:
            await asyncio.sleep(self._look_seconds)
            if self._others():
                for place in self._held[self._settings.beside :]:
                    if place.patient:
                        place.wanted.set()

    def _others(self) -> int:
        # A line that went in is not counted there at once.
        found = max(0, self._inflight() - self.inside)
        if found:
            self._seen = self._clock()
        return found

    def _waited(self) -> float:
        return self._clock() - self._answered

    def _has_room(self) -> bool:
        others = self._others()
        quiet = self._clock() - self._seen
        most = room(self._settings, others=others, quiet=quiet, waited=self._waited())
        return self.inside < most and self._is_open()


class Place:
    """One place of a gate, taken and given back by whoever holds this; giving back twice changes nothing.

    `wanted` is set when a client came and the line shall come out; a place that is not `patient` is not asked
    back.
    """

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self.wanted = asyncio.Event()
        self.patient = True

    async def take(self) -> None:
        """Wait for the place."""
        self.wanted.clear()
        await self._gate.enter(self)

    def give_back(self, *, answered: bool = False) -> None:
        """Let another line in; `answered` says that this one is done."""
        self._gate.leave(self, answered=answered)
