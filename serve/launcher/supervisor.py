"""The parent process: it holds the socket and the answers while the engine's process comes and goes.

    starting → ready → (restarting → ready)* → draining → ended
                 any of them → gave up: the reason and a non-zero exit code

It imports neither vLLM nor torch, so it can neither be slow nor crash with them. Invariants: the socket
listens from before the first start until after the last child has ended; at any time exactly one of the
two, this process or a started child, accepts; no process outlives `run`; nothing that the machine lacks
for a moment (descriptors, memory, disk, a reader of what is said) ends it.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from registry.entries.replicas import HEARTBEAT_SECONDS
from serve.door.pages import Pages
from serve.launcher.child.following import Ended, follow
from serve.launcher.child.processes import (
    Command,
    EngineProcess,
    adopt_orphans,
    raise_descriptor_limit,
    spawn,
    watch_children,
)
from serve.launcher.compiling import BackgroundCompiler
from serve.launcher.holding import Holding, Outage
from serve.launcher.notify import ServiceManager
from serve.launcher.output.aside import aside
from serve.launcher.output.engine_log import EngineLog
from serve.launcher.output.log_file import Folder, LogFile
from serve.launcher.output.logs import reason
from serve.launcher.presence import Presence
from serve.launcher.restarts import Ending, RestartPolicy
from serve.launcher.worker import SupervisedWorker
from serve.launcher.yielding import Yielding
from serve.settings import HANGS_VARIABLE, RESTARTS_VARIABLE, ConnectionLimits

BAD_ARGUMENTS = 2
"""The child's exit code for a configuration that no restart can mend."""

GAVE_UP = 1
"""Our exit code after a crash loop."""

_AT_ONCE_SECONDS = 0.001
_LAST_ANSWERS_SECONDS = 0.2
_DISK_SECONDS = 5.0
_FIRST_TROUBLE_SECONDS = 0.2
_LONGEST_TROUBLE_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class SupervisorOptions:
    """What to start and how long to wait for it; `say` prints one line to the operator, and never raises.

    `overlay` gives variables of the environment that are looked for at each start; it may wait for a disk.
    `hang_seconds` is how long the child may be silent once it is ready, 0 for ever. The engine inherits the
    descriptor `output`, for log lines of its own beside those; `connections` are the limits of what this
    process answers itself, `pages` those that may read it. What `yielding` holds stands still while the
    engine has requests in flight.
    """

    command: Command
    environment: Mapping[str, str]
    log_folders: Sequence[Folder]
    start_timeout_seconds: float
    drain_seconds: float
    say: Callable[[str], None]
    hang_seconds: float = 0.0
    overlay: Callable[[], Mapping[str, str]] | None = None
    describe_ready: Callable[[], str] = lambda: "ready"
    presence: Presence | None = None
    output: int | None = None
    connections: ConnectionLimits = field(default_factory=ConnectionLimits)
    pages: Pages | None = None
    compiler: BackgroundCompiler | None = None
    worker: SupervisedWorker | None = None
    yielding: Yielding | None = None
    policy: RestartPolicy = field(default_factory=RestartPolicy)
    manager: ServiceManager = field(default_factory=ServiceManager)


class Supervisor:
    """Runs one engine after the other on `listener`, which belongs to the caller, until told to stop."""

    def __init__(self, listener: socket.socket, plan: SupervisorOptions) -> None:
        self.listener = listener
        self.plan = plan
        self.holding = Holding(listener, plan.connections, plan.pages)
        self.stopping = asyncio.Event()
        self.hurry = asyncio.Event()
        self._endings: list[Ending] = []
        self._hangs = 0
        self._child: EngineProcess | None = None
        self._troubles = 0
        self._told: set[str] = set()
        self._compiling: asyncio.Task[None] | None = None
        self._working: asyncio.Task[None] | None = None

    async def run(self) -> int:
        """Supervise until SIGTERM or SIGINT (exit code 0), or until the policy gives up."""
        adopt_orphans()
        raise_descriptor_limit()
        watch_children()
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._note)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        if self.plan.yielding is not None:
            self.plan.yielding.start()
        await self.holding.start()
        self.plan.manager.ready("answering; the engine is starting")
        beating = [
            asyncio.create_task(self._beat(), name="tell the service manager"),
            asyncio.create_task(self._announce(), name="beat while the engine cannot"),
        ]
        try:
            return await self._supervise()
        finally:
            for task in beating:
                task.cancel()
            await _cancelled(self._compiling)
            await _cancelled(self._working)
            if self.plan.yielding is not None:
                self.plan.yielding.close()
            if self.plan.presence is not None:
                await aside(self.plan.presence.leave, _DISK_SECONDS, None)
            self.holding.stop()

    def stop(self) -> None:
        """Drain and end; asked a second time, end at once."""
        (self.hurry if self.stopping.is_set() else self.stopping).set()
        if self._working is not None:
            self._working.cancel()  # while the engine drains
        self.plan.manager.stopping()

    async def hold(self, *, hung: bool = False) -> None:
        """Answer clients ourselves from now on."""
        if self.stopping.is_set():
            self.holding.explain(Outage("draining", "the server is shutting down", 5))
        else:
            why = "the engine has hung" if hung else ""
            self.holding.explain(Outage("restarting", "the engine is restarting", 5, why))
        await self.holding.start()

    async def announce_ready(self) -> None:
        """Say that the engine is ready; what we are told of it may lie on a disk that is away."""
        self._troubles = 0
        self._told.clear()
        self.plan.say(await aside(self.plan.describe_ready, _DISK_SECONDS, "ready"))
        self.plan.manager.status("ready")
        self._compile()
        if self._working is None and self.plan.worker is not None:
            self._working = asyncio.create_task(self.plan.worker.run(), name="train beside the engine")

    def _compile(self) -> None:
        """Have compiled code made beside the engine, and the engine told of it."""
        if (compiler := self.plan.compiler) is None:
            return
        compiler.changed = self._advise
        if self._compiling is None or self._compiling.done():
            self._compiling = asyncio.create_task(compiler.run(), name="compile beside the engine")
        self._advise()

    def _advise(self) -> None:
        if self._child is not None and self.plan.compiler is not None:
            self._child.advise(self.plan.compiler.note)

    async def _supervise(self) -> int:
        while not self.stopping.is_set():
            try:
                code = await self._run_one()
            except Exception as error:  # noqa: BLE001 - whatever the machine lacks, clients are answered
                await self._weather(error)
                continue
            if code is not None:
                return code
        await asyncio.sleep(_LAST_ANSWERS_SECONDS)  # whoever connected last still gets an answer
        self.plan.say("stopped")
        presence = self.plan.presence
        return GAVE_UP if presence is not None and presence.refused else 0

    async def _run_one(self) -> int | None:
        """Run one engine to its end; return the exit code where that was the last one."""
        if self._child is not None:  # what could not be ended in the trouble before
            await self._child.end()
        child = self._child = await self._spawn()
        ended = await follow(child, self)
        self._child = None
        if self.plan.yielding is not None:
            self.plan.yielding.forget()
        if self.stopping.is_set() or await self._again(child, ended):
            return None
        return BAD_ARGUMENTS if ended.code == BAD_ARGUMENTS else GAVE_UP

    async def _spawn(self) -> EngineProcess:
        log = EngineLog(LogFile(self.plan.log_folders, self.plan.say))
        try:
            environment = await self._environment()
            yielding = self.plan.yielding
            also = () if yielding is None else (yielding.descriptor,)
            environment |= {} if yielding is None else yielding.variables()
            command, output = self.plan.command, self.plan.output
            child = await spawn(command, self.listener, environment, log, output, also=also)
        except BaseException:
            await log.close()
            raise
        where = await log.named()
        attempt = len(self._endings) + 1
        self.plan.say(f"starting the engine (start {attempt}, process {child.process.pid}, log {where})")
        return child

    async def _environment(self) -> dict[str, str]:
        overlay: Mapping[str, str] = {}
        if self.plan.overlay is not None:
            overlay = await aside(self.plan.overlay, _DISK_SECONDS, overlay)
        counts = {RESTARTS_VARIABLE: str(len(self._endings)), HANGS_VARIABLE: str(self._hangs)}
        return {**self.plan.environment, **overlay, **counts}

    async def _again(self, child: EngineProcess, ended: Ended) -> bool:
        """Book how the child ended; wait and return True, or say why not and return False."""
        code = ended.code
        why = ended.told or (reason(child.log.words()) if code >= 0 else "from outside; was memory short?")
        self._endings.append(Ending(time.monotonic(), ended.ready, incurable=code == BAD_ARGUMENTS))
        self._hangs += ended.hung
        delay = self.plan.policy.delay(self._endings)
        self.plan.say(f"the engine {_describe_end(ended)}: {why}")
        if delay is None:
            hopeless = _hopeless(code, len(self._endings))
            self.plan.say(f"error: engine: {hopeless}: {why}; see {child.log.path or 'the lines above'}")
            return False
        self.plan.say(f"starting it again in {delay:g} s")
        self.plan.manager.status("the engine is restarting")
        await self._wait(delay or _AT_ONCE_SECONDS)
        return True

    async def _weather(self, error: Exception) -> None:
        """Hold on after what should not happen: end what was begun, wait, and let it be tried again."""
        self._tell_once(f"error: launcher: {type(error).__name__}: {error}; trying again")
        seconds = min(_FIRST_TROUBLE_SECONDS * 2**self._troubles, _LONGEST_TROUBLE_SECONDS)
        self._troubles += 1
        with contextlib.suppress(Exception):  # the next turn begins with it
            await self.hold()
            if self._child is not None:
                await self._child.end()
                self._child = None
        await self._wait(seconds)

    async def _wait(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.stopping.wait()

    async def _beat(self) -> None:
        interval = self.plan.manager.interval_seconds
        while interval is not None:
            self.plan.manager.alive()
            await asyncio.sleep(interval)

    async def _announce(self) -> None:
        presence = self.plan.presence
        while presence is not None:
            if self.holding.active and not self.stopping.is_set():
                refusal = await aside(presence.beat, _DISK_SECONDS, "")
                if refusal:
                    self.plan.say(f"error: {refusal}")
                    self.stop()
                    return
            await asyncio.sleep(HEARTBEAT_SECONDS)

    def _note(self, _loop: asyncio.AbstractEventLoop, context: Mapping[str, Any]) -> None:
        """Say once what a callback of the loop met; it is tried again by itself."""
        error = context.get("exception")
        words = f"{context.get('message', '')}: {error}" if error is not None else context.get("message", "")
        self._tell_once(f"error: launcher: {words}")

    def _tell_once(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            self.plan.say(text)


async def _cancelled(task: asyncio.Task[None] | None) -> None:
    """Cancel a task and wait for its end."""
    if task is not None:
        if not task.cancelling():  # a second time would break off the clean-up that the first began
            task.cancel()
        await asyncio.wait({task})


def _hopeless(code: int, starts: int) -> str:
    if code == BAD_ARGUMENTS:
        return "its configuration is wrong"
    return f"crash loop, gave up after {starts} starts"


def _describe_end(ended: Ended) -> str:
    if ended.hung:
        return "hung"
    if ended.code >= 0:
        return f"ended (exit code {ended.code})"
    try:
        return f"ended (killed by {signal.Signals(-ended.code).name})"
    except ValueError:
        return f"ended (killed by signal {-ended.code})"
