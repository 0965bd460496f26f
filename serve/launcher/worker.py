"""A worker for fine-tuning jobs beside the engine: started when a job waits, ended with the server.

Owns when it is wanted (`tuning.worker`) and its one process. It is another package's program, known here by
name alone. Invariants: it starts behind the engine and ends before this process does; whatever becomes of
it, the engine and its clients notice nothing; it takes only what the engine leaves of the processors.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Literal

from registry.errors import WardrobeError
from registry.priority import put_last
from registry.storage.root import Root
from registry.tuning.jobs import TuningJobs
from registry.tuning.machine import JobState
from serve.launcher.output.aside import aside
from serve.launcher.restarts import Ending, RestartPolicy
from serve.launcher.tasks import TASKS_VARIABLE, WorkerTasks
from serve.launcher.yielding import Yielding

PROGRAM = "train.worker"
PARENT_VARIABLE = "WARDROBE_WORKER_PID"
"""Tells the worker whose end is its own."""

_NEEDS = ("torch", "transformers", "peft", "trl")
_LOOK_SECONDS = 1.0
_DISK_SECONDS = 5.0
_END_SECONDS = 20.0
_LINE_BYTES = 64 * 1024
_WAITING = (JobState.VALIDATING, JobState.QUEUED, JobState.RUNNING)


def is_wanted(setting: Literal["auto", "on", "off"], device: str, *, accelerator: bool) -> bool:
    """Return whether the server starts a worker, without importing anything that trains.

    By itself it does where training is installed and there is a device for it: the processors beside an
    engine that uses them too, else the one that `tuning.device` names.
    """
    if setting != "auto":
        return setting == "on"
    return (bool(device) or not accelerator) and all(find_spec(name) is not None for name in _NEEDS)


@dataclass(slots=True)
class SupervisedWorker:
    """Starts `command` whenever a job of `root` waits; `say` tells the operator, each line marked.

    Its trainings stand still while requests are in flight where there is a `yielding`.
    """

    root: Root
    command: Sequence[str]
    environment: Mapping[str, str]
    say: Callable[[str], None]
    yielding: Yielding | None = None
    policy: RestartPolicy = field(default_factory=lambda: RestartPolicy(limit=1_000_000))
    look_seconds: float = _LOOK_SECONDS
    _endings: list[Ending] = field(default_factory=list)
    _told: str = ""

    async def run(self) -> None:
        """Watch and work until cancelled; then the worker is asked to stop, and ended if it does not."""
        jobs = TuningJobs(self.root)
        while True:
            if await aside(lambda: self._waits(jobs), _DISK_SECONDS, otherwise=False):
                await self._work()
            await asyncio.sleep(self.look_seconds)

    def _waits(self, jobs: TuningJobs) -> bool:
        try:
            return bool(jobs.in_state(*_WAITING))
        except WardrobeError:
            return False  # the root is away: it is looked at again

    async def _work(self) -> None:
        """Run one worker to its end, and wait where it failed."""
        try:
            tasks = WorkerTasks(self.yielding) if self.yielding is not None else None
            process = await self._start(tasks)
        except OSError as error:
            await self._pause(f"cannot be started: {error}")
            return
        put_last(process.pid)  # at once: its imports alone would take a core from the engine for seconds
        with tasks.following() if tasks is not None else contextlib.nullcontext():
            try:
                await self._follow(process)
            finally:
                if tasks is not None:
                    tasks.let_go()  # they end their steps in time
                await _end(process)
        if process.returncode:
            await self._pause(f"ended (exit code {process.returncode})")

    async def _start(self, tasks: WorkerTasks | None) -> asyncio.subprocess.Process:
        """Raises: OSError."""
        told = {} if tasks is None else {TASKS_VARIABLE: str(tasks.writing)}
        try:
            return await asyncio.create_subprocess_exec(
                *self.command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                env={**self.environment, **told, PARENT_VARIABLE: str(os.getpid())},
                pass_fds=() if tasks is None else (tasks.writing,),
                start_new_session=True,
                limit=_LINE_BYTES,
            )
        except OSError:
            if tasks is not None:
                tasks.close()
            raise
        finally:
            if tasks is not None:
                os.close(tasks.writing)  # ours: the pipe ends with the worker

    async def _follow(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        while True:
            try:
                line = await process.stdout.readline()
            except ValueError:  # longer than any of ours
                continue
            if not line:
                await process.wait()
                return
            self.say(f"worker: {line.decode(errors='replace').rstrip()}")

    async def _pause(self, why: str) -> None:
        self._endings = [*self._endings[-20:], Ending(time.monotonic(), ready=False)]
        delay = self.policy.delay(self._endings) or 0.0
        if why != self._told:
            self._told = why
            self.say(f"warning: worker: {why}; starting it again in {delay:g} s")
        await asyncio.sleep(delay)


async def _end(process: asyncio.subprocess.Process) -> None:
    """Ask a worker that runs to stop, and end it where it does not; its trainings die with it."""
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(_END_SECONDS):
            await process.wait()
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
