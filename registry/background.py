"""Work that goes on: one turn after the other until it is told to stop, whatever a turn raises.

Owns how a failed turn is told, counted and tried again; every loop and thread of a server that must not end
is a `PeriodicWork` here. Invariants: nothing that a turn raises ends its work; a kind of failure is logged
once until a turn succeeds again; a turn that never returns is a problem like one that fails.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Protocol

from registry.errors import WardrobeError

LONGEST_PAUSE_SECONDS = 5.0
"""Between two tries of what fails: a root that is back is noticed within this time."""

_SHORTEST_PAUSE_SECONDS = 0.25
_PATIENCE_SECONDS = 60.0
_KINDS_TOLD = 20
_LOOK_SECONDS = 1.0  # a pause that was made shorter meanwhile is noticed

_log = logging.getLogger(__name__)

Turn = Callable[[], Awaitable[None]] | Callable[[], None]


@dataclass(slots=True, eq=False)
class PeriodicWork:
    """One kind of work: `turn` does it once, `every_seconds` after the last one.

    A turn that takes longer than `patience_seconds` is told as a problem. Times are of the monotonic clock:
    `began` of the turn that runs now, `succeeded` of the end of the last good one. `problem` says why the
    last turn failed, '' after a good one.
    """

    name: str
    turn: Turn
    every_seconds: float
    patience_seconds: float = _PATIENCE_SECONDS
    clock: Callable[[], float] = time.monotonic
    failures: int = 0
    in_a_row: int = 0
    problem: str = ""
    began: float | None = None
    succeeded: float = 0.0
    _noted: str = ""
    _told: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.succeeded = self.clock()

    @property
    def pause(self) -> float:
        """Return the seconds to the next turn: longer and longer while it fails."""
        if not self.in_a_row:
            return self.every_seconds
        doubled = max(self.every_seconds, _SHORTEST_PAUSE_SECONDS) * 2.0 ** min(self.in_a_row - 1, 16)
        return max(self.every_seconds, min(doubled, LONGEST_PAUSE_SECONDS))

    def state(self) -> str:
        """Return what is wrong with it now, '' if nothing is."""
        began = self.began
        taken = 0.0 if began is None else self.clock() - began
        if taken > self.patience_seconds:
            return f"has not come to an end for {taken:.0f} s"
        return self.problem

    def succeed(self) -> None:
        """Take note of a turn that came to its end, maybe with faults in parts of it."""
        if self.in_a_row:
            seconds = self.clock() - self.succeeded
            _log.info("%s goes on, after %d failures within %.0f s", self.name, self.in_a_row, seconds)
        self.in_a_row, self.problem, self._noted, self.succeeded = 0, self._noted, "", self.clock()
        if not self.problem:
            self._told.clear()

    def fail(self, error: BaseException) -> None:
        """Take note of a failed turn: counted always, logged once per kind."""
        self.in_a_row += 1
        self.problem, self._noted = self._count(error), ""

    def note(self, error: BaseException) -> None:
        """Take note of a fault in a part of a turn, which goes on with the other parts, and as often."""
        self._noted = self._count(error)

    def _count(self, error: BaseException) -> str:
        self.failures += 1
        try:
            text = _describe(error)
            self._tell(error, text)
        except Exception:  # noqa: BLE001 - no memory, no stack left: it is counted, and the work goes on
            text = type(error).__name__
        return text

    def _tell(self, error: BaseException, text: str) -> None:
        kind = f"{type(error).__name__} {getattr(error, 'subject', '')}"
        if kind not in self._told and len(self._told) < _KINDS_TOLD:
            self._told.add(kind)
            foreseen = isinstance(error, WardrobeError)
            _log.warning(
                "%s failed and is tried again: %s", self.name, text, exc_info=None if foreseen else error
            )


class Pausing(Protocol):
    """How the thread of one work waits between two turns, where something may end a pause early."""

    def wait(self, seconds: float) -> None:
        """Return after `seconds`, or before, when the next turn is wanted."""
        ...

    def release(self) -> None:
        """End the pause that goes on now, and every later one; called by another thread."""
        ...

    def close(self) -> None:
        """Give back what it holds: the last turn was made."""
        ...


class Background:
    """All work of one process that goes on; `stop` ends its threads, whoever started a task cancels it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._works: dict[str, PeriodicWork] = {}
        self._stopping = threading.Event()
        self._threads: list[threading.Thread] = []
        self._pausings: list[Pausing] = []
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def works(self) -> Mapping[str, PeriodicWork]:
        """Return every work by its name."""
        return MappingProxyType(self._works)

    def work(
        self, name: str, turn: Turn, every_seconds: float, patience_seconds: float = _PATIENCE_SECONDS
    ) -> PeriodicWork:
        """Add a work; a name is given once."""
        assert name not in self._works, f"{name} is there already"
        found = self._works[name] = PeriodicWork(name, turn, every_seconds, patience_seconds, self._clock)
        return found

    def problems(self) -> dict[str, str]:
        """Return what is wrong now, by the work's name."""
        return {name: state for name, work in self._works.items() if (state := work.state())}

    def loop(self, work: PeriodicWork) -> asyncio.Task[None]:
        """Run a work on the event loop until the task is cancelled."""
        return self._keep(self._run(work), work.name)

    def thread(self, work: PeriodicWork, pausing: Pausing | None = None) -> None:
        """Run a work in a thread of its own until `stop`; the first turn is after its pause.

        `pausing`, which may end a pause early, is closed with the thread.
        """
        thread = threading.Thread(
            target=self._run_thread, args=(work, pausing), name=f"wardrobe-{work.name}", daemon=True
        )
        self._threads.append(thread)
        if pausing is not None:
            self._pausings.append(pausing)
        thread.start()

    def once(self, name: str, turn: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
        """Run something once on the event loop; what it raises is counted and told under `name`."""
        work = self._works.get(name) or self.work(name, turn, 0.0)
        return self._keep(_attempt(work, turn), name)

    def stop(self) -> None:
        """End the threads and wait for them; a turn that hangs is left behind after a second."""
        self._stopping.set()
        for pausing in self._pausings:
            pausing.release()
        threads, self._threads = self._threads, []
        for thread in threads:
            thread.join(timeout=1.0)

    def _keep(self, coroutine: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = asyncio.create_task(coroutine, name=name)
        self._tasks.add(task)  # the loop itself holds tasks weakly
        task.add_done_callback(self._tasks.discard)
        return task

    async def _run(self, work: PeriodicWork) -> None:
        while True:
            await _attempt(work, work.turn)
            ended, left = work.clock(), work.pause
            while True:
                await asyncio.sleep(min(left, _LOOK_SECONDS))
                left = work.pause - (work.clock() - ended)
                if left <= 0:
                    break

    def _run_thread(self, work: PeriodicWork, pausing: Pausing | None) -> None:
        try:
            while not self._stops_after_pause(work, pausing):
                self._run_turn(work)
        finally:
            if pausing is not None:
                pausing.close()

    def _stops_after_pause(self, work: PeriodicWork, pausing: Pausing | None) -> bool:
        if pausing is None:
            return self._stopping.wait(work.pause)
        pausing.wait(work.pause)
        return self._stopping.is_set()

    @staticmethod
    def _run_turn(work: PeriodicWork) -> None:
        work.began = work.clock()
        try:
            work.turn()
        except Exception as error:  # noqa: BLE001 - this is the place that catches everything
            work.fail(error)
        else:
            work.succeed()
        work.began = None


async def _attempt(work: PeriodicWork, turn: Turn) -> None:
    work.began = work.clock()
    try:
        done = turn()
        if done is not None:
            await done
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        work.fail(error)  # a part of the turn was cancelled, not the work
    except Exception as error:  # noqa: BLE001 - this is the place that catches everything
        work.fail(error)
    else:
        work.succeed()
    finally:
        work.began = None


def _describe(error: BaseException) -> str:
    return str(error) if isinstance(error, WardrobeError) else f"{type(error).__name__}: {error}"
