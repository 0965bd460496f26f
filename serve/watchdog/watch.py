"""Looks at the engine again and again, and gives it up when it hangs.

Owns the pulse that is out and the answer to "does it live?"; what a look means is `patience`'s. Invariants:
one pulse is out at a time; no look waits for the engine; a time in which this loop did not turn (a suspended
machine, a frozen container) is not counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from serve.engine.interface import Engine
from serve.process_group import TICKS_PER_SECOND, Activity
from serve.watchdog.patience import HangDetector, HangVerdict, HealthSample

LOOK_SECONDS = 1.0
_LOOKS_PER_LIMIT = 10
WORKERS_SECONDS = 60.0
"""How often a pulse goes on to the workers."""

WORKING_SHARE = 0.1
"""Of one core: an idle vLLM with a worker was measured at 0.01, a step at 1 or more."""

PROBE = "Hello there"
"""Asked for when requests wait and nothing is made of them: a grammar that is compiled for one of them, say,
keeps nobody else waiting, so the probe's answer is progress."""

_log = logging.getLogger("wardrobe.engine")


@dataclass(slots=True, eq=False)
class EngineWatch:
    """Watches `engine`: hung after `hang_seconds` without a sign of life, 0 = never.

    `in_use` names the versions that are in use now; `loading_seconds` returns what a load that is going on
    may take, 0 when there is none.
    """

    engine: Engine
    hang_seconds: float
    in_use: Callable[[], tuple[str, ...]] = tuple
    loading_seconds: Callable[[], float] = float
    clock: Callable[[], float] = time.monotonic
    verdict: HangVerdict | None = None
    suspects: tuple[str, ...] = ()
    """The versions that were in use when the engine last answered; what came later waited in vain."""
    _patience: HangDetector = field(init=False)
    _pulse: asyncio.Task[None] | None = None
    _probe: asyncio.Task[None] | None = None
    _looked_at: float = 0.0
    _asked_workers_at: float = 0.0
    _made: int | None = None
    _activity: Activity | None = None

    def __post_init__(self) -> None:
        self._patience = HangDetector(self.hang_seconds)
        self._looked_at = self._asked_workers_at = self.clock()

    @property
    def age(self) -> float:
        """Return for how many seconds every sign of life has been missing."""
        return self._patience.age

    @property
    def look_seconds(self) -> float:
        """Return how often it looks."""
        return min(LOOK_SECONDS, self.hang_seconds / _LOOKS_PER_LIMIT)

    def stop(self) -> None:
        """Cancel what is still asked of the engine."""
        for task in (self._pulse, self._probe):
            if task is not None:
                task.cancel()

    def look(self) -> None:
        """Look once, and give the engine up where that is due; one that has died is looked at no more."""
        if not self.engine.alive():
            self.stop()
            return
        look = self._take_look()
        self._verdict(self._patience.take(look))
        if self._patience.stuck >= self.hang_seconds / 2 and (self._probe is None or self._probe.done()):
            self._probe = _quietly(self._ask_for_a_token, "probe")

    def _take_look(self) -> HealthSample:
        now = self.clock()
        seconds = min(now - self._looked_at, 2 * self.look_seconds)
        self._looked_at = now
        late = self._send_pulse(now)
        progress = self.engine.progress()
        known = progress.made is not None
        progressed = known and progress.made != self._made
        self._made = progress.made
        activity, before = self.engine.activity(), self._activity
        self._activity = activity
        return HealthSample(
            seconds,
            late=late,
            unfinished=progress.unfinished if known else 0,
            progressed=progressed,
            working=None if activity is None or before is None else _works(before, activity, seconds),
            stopped=() if activity is None else activity.stopped,
            held=activity is not None and activity.traced,
            loading_seconds=self.loading_seconds(),
        )

    def _send_pulse(self, now: float) -> bool:
        """Return whether the pulse that was sent before is late; send another where it is not."""
        if self._pulse is not None and not self._pulse.done():
            if not self._patience.silent:
                # What hangs may have come just behind the pulse.
                self.suspects = tuple(sorted({*self.suspects, *self.in_use()}))
            return True
        workers = now - self._asked_workers_at >= WORKERS_SECONDS
        if workers:
            self._asked_workers_at = now
        self.suspects = self.in_use()
        self._pulse = _quietly(partial(self.engine.pulse, workers=workers), "pulse")
        return False

    def _verdict(self, verdict: HangVerdict | None) -> None:
        if verdict is None:
            return
        self.verdict = verdict
        detail = f" ({verdict.detail})" if verdict.detail else ""
        _log.error("the engine hangs: %s%s; it is started again", verdict.reason, detail)
        self.engine.give_up(f"{verdict.reason}{detail}")

    async def _ask_for_a_token(self) -> None:
        await self.engine.score(None, [self.engine.tokenize(PROBE)])


def _works(before: Activity, now: Activity, seconds: float) -> bool:
    """Return whether processes computed between two looks, or wait for a disk."""
    spent = sum(max(0, ticks - before.ticks.get(process, 0)) for process, ticks in now.ticks.items())
    return now.blocked or spent >= WORKING_SHARE * seconds * TICKS_PER_SECOND


def _quietly(work: Callable[[], Coroutine[Any, Any, None]], name: str) -> asyncio.Task[None]:
    """Run `work`; that it raises is an answer, and a dead engine is told of elsewhere."""

    async def run() -> None:
        with contextlib.suppress(Exception):
            await work()

    return asyncio.create_task(run(), name=name)
