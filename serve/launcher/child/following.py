"""One child from its start to its end: up, ready, watched, and let go of.

Owns when the socket changes hands and how long the end may take. Invariant: when `follow` returns, no
process of the child's group is left and this process accepts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from serve.launcher.child.hearing import ChildListener
from serve.launcher.child.processes import EngineProcess
from serve.launcher.child.pulse import ChildPulse
from serve.launcher.child.readiness import wait_ready
from serve.process_group import activity

if TYPE_CHECKING:
    from serve.launcher.supervisor import Supervisor

PATIENCE_SECONDS = 30.0
"""A start that takes longer is told of, again and again: operators watch its output."""

_LAST_WORDS_SECONDS = 0.5
_LAST_WILL_SECONDS = 10.0
_DRAIN_GRACE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Ended:
    """How a child ended: its exit code, whether it was ever ready, what it told, whether it hung."""

    code: int
    ready: bool
    told: str
    hung: bool


class _Events:
    """What can happen to a child: each `wait` returns at the first of them, or after `seconds`."""

    def __init__(self, child: EngineProcess, hearing: ChildListener, owner: Supervisor) -> None:
        self._hearing = hearing
        self._ended = asyncio.create_task(child.process.wait())
        self._stopping = asyncio.create_task(owner.stopping.wait())
        self._listening = asyncio.create_task(hearing.run())

    @property
    def ended(self) -> bool:
        """Return whether the process has ended."""
        return self._ended.done()

    @property
    def stopping(self) -> bool:
        """Return whether we are told to stop."""
        return self._stopping.done()

    @property
    def ending(self) -> bool:
        """Return whether the child has ended, is about to, or has to."""
        hearing = self._hearing
        return self.ended or self.stopping or hearing.ending or hearing.closed or hearing.over

    async def wait(self, seconds: float | None, *more: asyncio.Task[None]) -> None:
        """Wait for the child's end or word, for our own end, or for one of `more`."""
        self._hearing.turn.clear()
        turn = asyncio.create_task(self._hearing.turn.wait())
        every = {self._ended, self._stopping, turn, *more}
        await asyncio.wait(every, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        turn.cancel()

    async def wait_end(self, seconds: float) -> None:
        """Wait until the process has ended or has nothing more to do."""
        deadline = asyncio.get_running_loop().time() + seconds
        while not (self.ended or self._hearing.over):
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0:
                return
            self._hearing.turn.clear()
            turn = asyncio.create_task(self._hearing.turn.wait())
            await asyncio.wait({self._ended, turn}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            turn.cancel()

    async def hear_last_words(self) -> None:
        """Listen to the end of the line, which is near."""
        await asyncio.wait({self._listening}, timeout=_LAST_WORDS_SECONDS)

    def close(self) -> None:
        """Wait for nothing any more."""
        for task in (self._ended, self._stopping, self._listening):
            task.cancel()


async def follow(child: EngineProcess, owner: Supervisor) -> Ended:
    """Follow one child to its end."""
    hearing = ChildListener(child)
    with _events(child, hearing, owner) as events:
        ready = await _bring_up(child, hearing, events, owner)
        if ready:
            await _stay(child, hearing, events, owner.plan.hang_seconds)
        await owner.hold(hung=hearing.hung)
        if events.stopping:
            await _drain(child, events, owner, ready=ready)
        elif (hearing.ending or hearing.closed) and not hearing.over:
            await events.wait_end(_LAST_WILL_SECONDS)
        code = await child.end()
        await events.hear_last_words()
        return Ended(code, ready, hearing.told, hearing.hung)


@contextmanager
def _events(child: EngineProcess, hearing: ChildListener, owner: Supervisor) -> Iterator[_Events]:
    events = _Events(child, hearing, owner)
    try:
        yield events
    finally:
        events.close()


async def _bring_up(child: EngineProcess, hearing: ChildListener, events: _Events, owner: Supervisor) -> bool:
    """Wait until the child is ready and return True; False when it has ended, has to, or took too long."""
    seconds = owner.plan.start_timeout_seconds
    told = asyncio.get_running_loop().time()
    deadline = told + seconds
    asking: list[asyncio.Task[None]] = []
    try:
        while not events.ending:
            if hearing.started and not asking:
                owner.holding.stop()
                child.notice()
                asking.append(asyncio.create_task(wait_ready(owner.listener)))
            if asking and asking[0].done():
                asking[0].result()
                await owner.announce_ready()
                return True
            now = asyncio.get_running_loop().time()
            if now >= deadline:
                hearing.told = f"was not ready within {seconds:g} s"
                return False
            if now >= told + PATIENCE_SECONDS:
                told = now
                since = seconds - (deadline - now)
                owner.plan.say(f"the engine is still starting, for {since:.0f} s of at most {seconds:g}")
            await events.wait(min(deadline, told + PATIENCE_SECONDS) - now, *asking)
    finally:
        for task in asking:
            task.cancel()
    return False


async def _stay(child: EngineProcess, hearing: ChildListener, events: _Events, hang_seconds: float) -> None:
    """Stay with a child that is ready until it has ended, has to end, or answers no more."""
    pulse = ChildPulse(hang_seconds) if hang_seconds else None
    while not events.ending:
        if pulse is None:
            await events.wait(None)
            continue
        child.ping()
        await events.wait(pulse.look_seconds)
        if hung := pulse.look(hearing.pongs, hearing.missed):
            if activity([child.process.pid]).traced:
                pulse.forgive()
                continue
            hearing.told, hearing.hung, hearing.over = hung, True, True


async def _drain(child: EngineProcess, events: _Events, owner: Supervisor, *, ready: bool) -> None:
    if not ready:  # nothing is in flight, and an engine that starts does not listen
        owner.plan.say("stopping: the engine was not ready yet")
        return
    seconds = owner.plan.drain_seconds
    owner.plan.say(f"draining: finishing what is in flight, for up to {seconds:g} s")
    child.drain(seconds)
    ending = asyncio.create_task(events.wait_end(seconds + _DRAIN_GRACE_SECONDS))
    hurry = asyncio.create_task(owner.hurry.wait())
    await asyncio.wait({ending, hurry}, return_when=asyncio.FIRST_COMPLETED)
    for task in (ending, hurry):
        task.cancel()
