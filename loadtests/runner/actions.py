"""What is done to the server while the load runs: swaps, new versions, rollouts, kills, own commands.

Everything goes through the admin API, in threads, so that the load's own loop never waits. Invariant: an
action that fails is an event of the report with its reason; it never ends the run. One that has begun is in
the report whatever becomes of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from loadtests.live import command_line, descendants, is_alive
from loadtests.runner.scenario import Action, Scenario
from registry.api import documents as doc
from registry.api import operations
from registry.changes.publish import PublishRequest
from registry.errors import Conflict, NotFound, WardrobeError

if TYPE_CHECKING:
    from registry.api.client import HttpClient
    from serve.rollout.documents import RolloutStatus

Clock = Callable[[], float]
_POLL_SECONDS = 0.5
_SETTLE_SECONDS = 30.0
"""How long the run waits at its end for an action that is under way."""
_SERVER = b"serve.engine.child"
"""What stands in the command line of a replica's server process, and of nothing else."""
_ENGINE = "EngineCore"
"""The title of the process of vLLM's engine, below the server's."""


@dataclass(frozen=True, slots=True)
class ActionEvent:
    """Something that was done: `at` seconds from the run's begin, how long it took, what came of it."""

    at: float
    action: str
    subject: str
    seconds: float
    detail: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True)
class RolloutChange:
    """A rollout as it was first seen in this form; `began` and `moved` are the server's UNIX seconds."""

    at: float
    adapter: str
    canary: str
    state: str
    weight: int
    reason: str
    sentence: str
    began: float
    moved: float


@dataclass
class Actions:
    """The actions of a scenario on one server; `events` and `changes` fill while they run.

    `copies` names by every version that the run registered the one whose weights it has.
    """

    scenario: Scenario
    client: HttpClient
    events: list[ActionEvent] = field(default_factory=list)
    changes: list[RolloutChange] = field(default_factory=list)
    copies: dict[str, str] = field(default_factory=dict)
    _swapped: dict[str, bool] = field(default_factory=dict)
    _sources: dict[tuple[str, int | None], tuple[str, Path]] = field(default_factory=dict)
    _made: dict[str, list[int]] = field(default_factory=dict)
    _clock: Clock = lambda: 0.0
    _under_way: set[asyncio.Task[None]] = field(default_factory=set)
    _settling: bool = False

    async def run(self, clock: Clock) -> None:
        """Act when it is time, until cancelled."""
        self._clock = clock
        with tempfile.TemporaryDirectory(prefix="wardrobe-load-") as scratch:
            self._scratch = Path(scratch)
            jobs = [self._repeat(action) for action in self.scenario.actions]
            await asyncio.gather(*jobs, *(self._watch(adapter) for adapter in self._rolled_out()))

    async def settle(self) -> None:
        """Begin nothing more, wait for what is under way, and look at each rollout once more."""
        self._settling = True
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=_SETTLE_SECONDS)
        for adapter in self._rolled_out():
            await self._look(adapter)

    def _rolled_out(self) -> list[str]:
        return sorted({one.adapter for one in self.scenario.actions if one.action == "rollout"})

    async def _repeat(self, action: Action) -> None:
        due = action.at_seconds if action.at_seconds is not None else action.every_seconds or 0.0
        while due < self.scenario.total_seconds:
            await asyncio.sleep(max(0.0, due - self._clock()))
            if self._settling:
                return
            task = asyncio.create_task(self._act(action))
            self._under_way.add(task)
            try:
                await task
            finally:
                self._under_way.discard(task)
            if action.every_seconds is None:
                return
            due = max(due + action.every_seconds, self._clock())

    async def _act(self, action: Action) -> None:
        began = self._clock()
        detail, error = "", "was still under way when the run ended"
        try:
            detail, error = await asyncio.to_thread(self._verbs()[action.action], action), ""
        except (WardrobeError, OSError, subprocess.SubprocessError) as fault:
            error = str(fault)
        finally:
            subject = action.adapter or " ".join(action.run)
            self.events.append(
                ActionEvent(began, action.action, subject, self._clock() - began, detail, error)
            )

    def _verbs(self) -> dict[str, Callable[[Action], str]]:
        return {
            "swap": self._swap,
            "register": self._register,
            "rollout": self._rollout,
            "abort": self._abort,
            "kill_replica": self._kill,
            "command": _command,
        }

    def _swap(self, action: Action) -> str:
        back = self._swapped.get(action.adapter, False)
        if back:
            move = operations.rollback(self.client, action.adapter)
        else:
            wanted = doc.MoveRequest(version=action.version or self._newest(action.adapter))
            move = operations.promote(self.client, action.adapter, wanted)
        self._swapped[action.adapter] = not back
        return f"{action.adapter}@{move.version}"

    def _register(self, action: Action) -> str:
        made = self._made.setdefault(action.adapter, [])
        source, folder = self._source(action)
        registration = PublishRequest(action.adapter, folder, no_stable=True, allow_duplicate=True)
        version = operations.register(self.client, registration, lambda _: None).version
        self.copies[f"{action.adapter}@{version}"] = source
        made.append(version)
        if len(made) > action.keep:
            self._forget(action.adapter, made)
        return f"{action.adapter}@{version}"

    def _source(self, action: Action) -> tuple[str, Path]:
        key = (action.adapter, action.version)
        if key not in self._sources:
            stable = operations.show_adapter(self.client, action.adapter).stable
            number = action.version or stable or self._newest(action.adapter)
            target = self._scratch / f"{action.adapter}-{number}"
            operations.export(self.client, action.adapter, number, target)
            self._sources[key] = f"{action.adapter}@{number}", target
        return self._sources[key]

    def _forget(self, adapter: str, made: list[int]) -> None:
        used = {one.version for one in operations.show_adapter(self.client, adapter).versions if one.aliases}
        idle = next((number for number in made if number not in used), None)
        if idle is not None:
            operations.delete_version(self.client, adapter, idle)
            made.remove(idle)

    def _rollout(self, action: Action) -> str:
        from serve.rollout.documents import StartRequest
        from serve.rollout.operations import start_rollout
        from serve.rollout.presets import load_policy

        version = action.version or self._newest(action.adapter)
        request = StartRequest(version=version, policy=load_policy(action.policy), force=True)
        return start_rollout(self.client, action.adapter, request).status.canary

    def _abort(self, action: Action) -> str:
        from serve.rollout.documents import WhyRequest
        from serve.rollout.operations import abort_rollout

        return abort_rollout(self.client, action.adapter, WhyRequest(why="load test")).state

    def _kill(self, action: Action) -> str:
        live = [one for one in operations.list_replicas(self.client).replicas if one.live]
        ours = [one for one in live if one.state == "ready" and _is_ours(one.pid)]
        if not ours:
            fact = f"none of {len(live)} live replicas is a process of this machine"
            raise NotFound("kill_replica", fact, "use action: command")
        server = ours[-1]
        below = descendants(server.pid)
        engine = next((pid for pid in sorted(below) if _ENGINE in command_line(pid)), server.pid)
        victim = engine if action.process == "engine" else server.pid
        os.kill(victim, signal.SIGKILL)
        if action.back_seconds:
            self._await_back(server, {server.pid, *below}, action.back_seconds)
        return f"{server.replica}, process {victim}"

    def _await_back(self, killed: doc.ReplicaDocument, before: set[int], seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self._is_back(killed):
            if time.monotonic() > until:
                raise Conflict(killed.replica, f"is not ready again after {seconds:g} s", "see its log")
            time.sleep(_POLL_SECONDS)
        if left := sorted(filter(is_alive, before)):
            raise Conflict(killed.replica, f"left processes behind: {left}", "end them")

    def _is_back(self, killed: doc.ReplicaDocument) -> bool:
        with contextlib.suppress(WardrobeError):
            found = operations.list_replicas(self.client).replicas
            return any(
                one.replica == killed.replica and one.live and one.state == "ready" and one.pid != killed.pid
                for one in found
            )
        return False

    def _newest(self, adapter: str) -> int:
        return max(one.version for one in operations.show_adapter(self.client, adapter).versions)

    async def _watch(self, adapter: str) -> None:
        while True:
            await asyncio.sleep(_POLL_SECONDS)
            await self._look(adapter)

    async def _look(self, adapter: str) -> None:
        from serve.rollout.operations import show_rollout

        # No rollout yet, or the server is away: the requests tell that.
        with contextlib.suppress(WardrobeError):
            self._note(await asyncio.to_thread(show_rollout, self.client, adapter))

    def _note(self, status: RolloutStatus) -> None:
        last = next((one for one in reversed(self.changes) if one.adapter == status.adapter), None)
        seen = (status.canary, status.state, status.weight)
        if last is not None and (last.canary, last.state, last.weight) == seen:
            return
        started = any(
            event.action == "rollout" and event.subject == status.adapter and not event.error
            for event in self.events
        )
        if started:  # one of before this run is none of this report's
            self.changes.append(
                RolloutChange(
                    self._clock(),
                    status.adapter,
                    *seen,
                    status.reason,
                    status.sentence,
                    status.began,
                    status.at,
                )
            )


def _is_ours(pid: int) -> bool:
    try:
        return _SERVER in Path(f"/proc/{pid}/cmdline").read_bytes() and pid != os.getpid()
    except OSError:
        return False


def _command(action: Action) -> str:
    done = subprocess.run(action.run, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode != 0:
        raise Conflict(action.run[0], f"exit {done.returncode}: {done.stderr.strip()[-200:]}")
    return done.stdout.strip()[-200:]
