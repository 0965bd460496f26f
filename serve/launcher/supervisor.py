"""The parent process: it holds the socket and the answers while the engine's process comes and goes.

    starting → ready → (restarting → ready)* → draining → ended
                 any of them → gave up: the reason and a non-zero exit code

It imports neither vLLM nor torch, so it can neither be slow nor crash with them. Invariants: the socket
listens from before the first start until after the last child has ended; at any time exactly one of the
two, this process or a started child, accepts; no process outlives `run`.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from serve.door.pages import Pages
from serve.launcher.holding import Holding, Situation
from serve.launcher.logs import next_log, reason
from serve.launcher.processes import Child, Command, adopt_orphans, spawn
from serve.launcher.readiness import wait_ready
from serve.launcher.restarts import Ending, RestartPolicy
from serve.settings import RESTARTS_VARIABLE, ConnectionLimits

BAD_ARGUMENTS = 2
"""The child's exit code for a configuration that no restart can mend."""

GAVE_UP = 1
"""Our exit code after a crash loop."""

_AT_ONCE_SECONDS = 0.001
_LAST_WORDS_SECONDS = 0.5
_LAST_ANSWERS_SECONDS = 0.2
_DRAIN_GRACE_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What to start and how long to wait for it; `say` prints one line to the operator.

    The engine inherits the descriptor `output`, for log lines of its own beside those; `connections` are
    the limits of what this process answers itself, `pages` those that may read it.
    """

    command: Command
    environment: Mapping[str, str]
    logs: Path
    start_timeout_seconds: float
    drain_seconds: float
    say: Callable[[str], None]
    describe_ready: Callable[[], str] = lambda: "ready"
    output: int | None = None
    connections: ConnectionLimits = field(default_factory=ConnectionLimits)
    pages: Pages | None = None
    policy: RestartPolicy = field(default_factory=RestartPolicy)


class Supervisor:
    """Runs one engine after the other on `listener`, which belongs to the caller, until told to stop."""

    def __init__(self, listener: socket.socket, plan: Plan) -> None:
        self._listener = listener
        self._plan = plan
        self._holding = Holding(listener, plan.connections, plan.pages)
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()
        self._endings: list[Ending] = []
        self._told = ""

    async def run(self) -> int:
        """Supervise until SIGTERM or SIGINT (exit code 0), or until the policy gives up."""
        adopt_orphans()
        self._catch_signals()
        await self._holding.start()
        try:
            while not self._stop.is_set():
                child = await self._spawn()
                code, ready = await self._watch(child)
                if self._stop.is_set():
                    break
                if not await self._again(child, code, ready=ready):
                    return BAD_ARGUMENTS if code == BAD_ARGUMENTS else GAVE_UP
            await asyncio.sleep(_LAST_ANSWERS_SECONDS)  # whoever connected last still gets an answer
            self._plan.say("stopped")
            return 0
        finally:
            self._holding.stop()

    def stop(self) -> None:
        """Drain and end; asked a second time, end at once."""
        (self._hurry if self._stop.is_set() else self._stop).set()

    def _catch_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)

    async def _spawn(self) -> Child:
        self._told = ""
        log = next_log(self._plan.logs)
        environment = {**self._plan.environment, RESTARTS_VARIABLE: str(len(self._endings))}
        child = await spawn(self._plan.command, self._listener, environment, log, self._plan.output)
        attempt = len(self._endings) + 1
        self._plan.say(f"starting the engine (start {attempt}, process {child.process.pid}, log {log})")
        return child

    async def _watch(self, child: Child) -> tuple[int, bool]:
        """Follow one child to its end; return its exit code and whether it was ever ready."""
        ended = asyncio.create_task(child.process.wait())
        stopping = asyncio.create_task(self._stop.wait())
        starting = asyncio.create_task(self._follow_start(child))
        try:
            await self._wait_up(ended, stopping, starting)
            was_ready = starting.done() and starting.result()
            await self._hold()
            if stopping.done():
                await self._drain(child, ended)
            return await child.end(), was_ready
        finally:
            for task in (ended, stopping, starting):
                task.cancel()

    async def _wait_up(
        self, ended: asyncio.Task[int], stopping: asyncio.Task[bool], starting: asyncio.Task[bool]
    ) -> None:
        """Wait until the child has ended, has to end, or was not ready in time."""
        seconds = self._plan.start_timeout_seconds
        either = {ended, stopping}
        await asyncio.wait({*either, starting}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if starting.done() and starting.result():
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        elif starting.done():
            await asyncio.wait(either, timeout=_DRAIN_GRACE_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        elif ended.done():
            await asyncio.wait({starting}, timeout=_LAST_WORDS_SECONDS)
        elif not stopping.done():
            self._told = f"was not ready within {seconds:g} s"

    async def _follow_start(self, child: Child) -> bool:
        """Return True once the child is ready, False when its line ends before."""
        while (word := await child.heard()) is not None:
            verb, _, told = word.partition(" ")
            if verb == "started":
                self._holding.stop()
                child.notice()
                await wait_ready(self._listener)
                self._plan.say(self._plan.describe_ready())
                return True
            self._told = told
        return False

    async def _hold(self) -> None:
        state = "draining" if self._stop.is_set() else "restarting"
        message = "the server is shutting down" if self._stop.is_set() else "the engine is restarting"
        self._holding.explain(Situation(state, message, 5))
        await self._holding.start()

    async def _drain(self, child: Child, ended: asyncio.Task[int]) -> None:
        seconds = self._plan.drain_seconds
        self._plan.say(f"draining: finishing what is in flight, for up to {seconds:g} s")
        child.drain(seconds)
        hurry = asyncio.create_task(self._hurry.wait())
        await asyncio.wait(
            {ended, hurry}, timeout=seconds + _DRAIN_GRACE_SECONDS, return_when=asyncio.FIRST_COMPLETED
        )
        hurry.cancel()

    async def _again(self, child: Child, code: int, *, ready: bool) -> bool:
        """Book how the child ended; wait and return True, or say why not and return False."""
        await self._hear_last_words(child)
        why = self._told or (reason(child.log) if code >= 0 else "from outside; was memory short?")
        self._endings.append(Ending(time.monotonic(), ready, incurable=code == BAD_ARGUMENTS))
        delay = self._plan.policy.delay(self._endings)
        self._plan.say(f"the engine ended ({_describe_exit(code)}): {why}")
        if delay is None:
            self._plan.say(f"error: engine: {_hopeless(code, len(self._endings))}: {why}; see {child.log}")
            return False
        self._plan.say(f"starting it again in {delay:g} s")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stop.wait(), delay or _AT_ONCE_SECONDS)
        return True

    async def _hear_last_words(self, child: Child) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_WORDS_SECONDS):
                while (word := await child.heard()) is not None:
                    self._told = word.partition(" ")[2] or self._told


def _hopeless(code: int, starts: int) -> str:
    if code == BAD_ARGUMENTS:
        return "its configuration is wrong"
    return f"crash loop, gave up after {starts} starts"


def _describe_exit(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"
