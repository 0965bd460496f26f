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
import signal
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

Command = Callable[[int, int], Sequence[str]]
"""Builds the child's command line from the descriptors of the listening socket and of the line."""

_PR_SET_CHILD_SUBREAPER = 36
_TRACKER = b"resource_tracker"
_TRACKER_SECONDS = 2.0
_END_SECONDS = 10.0
_POLL_SECONDS = 0.02


def adopt_orphans() -> None:
    """Make this process the parent of what its descendants leave, so that it can reap them (Linux)."""
    if platform.system() == "Linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


@dataclass(slots=True)
class Child:
    """A running engine: its process, our end of the line, and its log."""

    process: asyncio.subprocess.Process
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    log: Path

    async def heard(self) -> str | None:
        """Return the next word of the child, or None when it has closed the line."""
        try:
            line = await self.reader.readline()
        except OSError:
            return None
        return line.decode(errors="replace").strip() or None

    def drain(self, seconds: float) -> None:
        """Ask it to finish what is in flight within `seconds`, and to end."""
        with contextlib.suppress(OSError):
            self.writer.write(f"drain {seconds}\n".encode())

    async def end(self) -> int:
        """End the whole group at once, reap it, and return the child's exit code."""
        await end_group(self.process.pid)
        code = await self.process.wait()
        await end_group(self.process.pid)
        reap_group(self.process.pid)
        self.writer.close()
        return code


async def spawn(
    command: Command, listener: socket.socket, environment: Mapping[str, str], log: Path
) -> Child:
    """Start the child with the listening socket and one end of a new line; output goes to `log`."""
    ours, theirs = socket.socketpair()
    with log.open("ab") as output, theirs:
        process = await asyncio.create_subprocess_exec(
            *command(listener.fileno(), theirs.fileno()),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=asyncio.subprocess.STDOUT,
            env=dict(environment),
            pass_fds=(listener.fileno(), theirs.fileno()),
            start_new_session=True,
        )
    reader, writer = await asyncio.open_connection(sock=ours)
    return Child(process, reader, writer, log)


async def end_group(group: int) -> None:
    """Kill every process of `group` and wait until none runs.

    Python's resource tracker goes last: it removes shared memory once everybody else is gone.
    """
    for process in group_members(group):
        if _TRACKER not in _command_line(process):
            _kill(process)
    await _wait_empty(group, _TRACKER_SECONDS)
    for process in group_members(group):
        _kill(process)
    await _wait_empty(group, _END_SECONDS)


def group_members(group: int) -> list[int]:
    """Return the processes of `group` that run (zombies are not among them)."""
    if platform.system() != "Linux":
        return [group] if _exists(group) else []
    return [int(entry.name) for entry in Path("/proc").glob("[0-9]*") if _runs_in(entry, group)]


def reap_group(group: int) -> None:
    """Collect the exit codes of orphans of `group` that fell to this process."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-group, os.WNOHANG)[0]:
            pass


async def _wait_empty(group: int, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while group_members(group) and time.monotonic() < deadline:  # noqa: ASYNC110 - /proc has no events
        await asyncio.sleep(_POLL_SECONDS)


def _runs_in(entry: Path, group: int) -> bool:
    try:
        # pid (name) state parent group …; the name may hold spaces and brackets.
        state, _, member_of = (entry / "stat").read_bytes().rpartition(b")")[2].split()[:3]
    except (OSError, ValueError):
        return False
    return int(member_of) == group and state not in {b"Z", b"X"}


def _command_line(process: int) -> bytes:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return b""


def _exists(process: int) -> bool:
    try:
        os.kill(process, 0)
    except OSError:
        return False
    return True


def _kill(process: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)
