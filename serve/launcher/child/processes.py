"""The engine's processes: one group, started together and ended together, none ever left behind.

The child leads a session and a process group of its own. vLLM starts EngineCore, workers and a resource
tracker below it. They end with the group; if this process is killed itself, the child notices at the
end of its line (`serve.engine.handover`) and ends the group from inside.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import platform
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from serve.launcher.output.engine_log import EngineLog
from serve.process_group import group_members, kill_members, remove_marks
from serve.settings import OUTPUT_VARIABLE

Command = Callable[[int, int], Sequence[str]]
"""Builds the child's command line from the descriptors of the listening socket and of the line."""

DESCRIPTORS = 65536
"""Enough for any number of clients that one process can answer."""

_PR_SET_CHILD_SUBREAPER = 36
_TRACKER_SECONDS = 2.0
_END_SECONDS = 10.0
_POLL_SECONDS = 0.02


def adopt_orphans() -> None:
    """Make this process the parent of what its descendants leave, so that it can reap them (Linux)."""
    if platform.system() == "Linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def raise_descriptor_limit() -> None:
    """Take as many descriptors as this process may have, up to `DESCRIPTORS`: each waiting client is one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def watch_children() -> None:
    """Have asyncio learn of a child's end without a thread for it, where the kernel can tell (Linux 5.3)."""
    if sys.version_info >= (3, 12) or not hasattr(os, "pidfd_open"):
        return  # from 3.12 on it does so by itself
    with contextlib.suppress(OSError):
        os.close(os.pidfd_open(os.getpid()))
        watcher = asyncio.PidfdChildWatcher()
        watcher.attach_loop(asyncio.get_running_loop())
        asyncio.set_child_watcher(watcher)


@dataclass(slots=True)
class EngineProcess:
    """A running engine: its process, our end of the line, and its log; `seen` ran in its group."""

    process: asyncio.subprocess.Process
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    log: EngineLog
    seen: set[int] = field(default_factory=set)

    def drain(self, seconds: float) -> None:
        """Ask it to finish what is in flight within `seconds`, and to end."""
        self._tell(f"drain {seconds}")

    def ping(self) -> None:
        """Ask whether it is there; it answers `pong N`, N = earlier pings that its loop has not seen."""
        self._tell("ping")

    def advise(self, note: str) -> None:
        """Give it a sentence for its heartbeat; '' takes the last one back."""
        self._tell(f"note {note}")

    def notice(self) -> None:
        """Note who runs in the group: some end before it does, and their traces are removed with it."""
        with contextlib.suppress(OSError, MemoryError):  # nothing to look with: a trace may stay
            self.seen.update(group_members(self.process.pid))

    async def end(self) -> int:
        """End the whole group at once, reap it, and return the child's exit code."""
        self.notice()
        await end_group(self.process.pid)
        code = await self._code()
        await end_group(self.process.pid)
        reap_group(self.process.pid)
        with contextlib.suppress(OSError, MemoryError):
            remove_marks([self.process.pid, *self.seen])
        self.writer.close()
        await self.log.close()
        return code

    async def _code(self) -> int:
        try:
            async with asyncio.timeout(_END_SECONDS):
                return await self.process.wait()
        except TimeoutError:
            # It waits for a device and cannot be killed. Nobody can end it; clients need not wait for it.
            return -signal.SIGKILL

    def _tell(self, word: str) -> None:
        with contextlib.suppress(OSError):
            self.writer.write(f"{word}\n".encode())


async def spawn(
    command: Command,
    listener: socket.socket | None,
    environment: Mapping[str, str],
    log: EngineLog,
    output: int | None = None,
    *,
    also: Sequence[int] = (),
) -> EngineProcess:
    """Start the child with the listening socket and one end of a new line; what it prints goes to `log`.

    It also inherits the descriptor `output`, under the number that `OUTPUT_VARIABLE` names, and those of
    `also`; one that answers nobody has no `listener`.

    Raises: OSError, RuntimeError: no descriptors, no memory, no thread. Whatever was begun ends by itself:
    a process that finds its line closed ends its group.
    """
    ours, theirs = socket.socketpair()
    shared = (*also, *(() if output is None else (output,)))
    listening = -1 if listener is None else listener.fileno()
    named = {} if output is None else {OUTPUT_VARIABLE: str(output)}
    try:
        with theirs:
            process = await asyncio.create_subprocess_exec(
                *command(listening, theirs.fileno()),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log.descriptor,
                stderr=asyncio.subprocess.STDOUT,
                env={**environment, **named},
                pass_fds=(*((listening,) if listener else ()), theirs.fileno(), *shared),
                start_new_session=True,
            )
        reader, writer = await asyncio.open_connection(sock=ours)
    except BaseException:
        ours.close()
        raise
    log.follow()
    return EngineProcess(process, reader, writer, log)


async def end_group(group: int) -> None:
    """Kill every process of `group` and wait until none runs; the trackers of shared memory go last."""
    await _kill_until_empty(group, _TRACKER_SECONDS, trackers=False)
    await _kill_until_empty(group, _END_SECONDS, trackers=True)


def reap_group(group: int) -> None:
    """Collect the exit codes of orphans of `group` that fell to this process."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-group, os.WNOHANG)[0]:
            pass


def _kill_blindly(group: int) -> bool:
    """Kill `group` without looking who is in it; return False when nobody is."""
    if not Path(f"/proc/{group}").exists():  # the leader's exit code is waited for elsewhere
        reap_group(group)
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


async def _kill_until_empty(group: int, seconds: float, *, trackers: bool) -> None:
    deadline = time.monotonic() + seconds
    kill = True
    while time.monotonic() < deadline:
        try:
            if kill:
                kill_members(group, trackers=trackers)
                kill = False
            if not group_members(group):
                return
        except (OSError, MemoryError):
            # Nothing to look into /proc with: the group is ended all the same, shared memory or not.
            kill = True
            if not _kill_blindly(group):
                return
        await asyncio.sleep(_POLL_SECONDS)
