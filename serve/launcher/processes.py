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
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from serve.process_group import group_members, kill_members, remove_marks
from serve.settings import OUTPUT_VARIABLE

Command = Callable[[int, int], Sequence[str]]
"""Builds the child's command line from the descriptors of the listening socket and of the line."""

_PR_SET_CHILD_SUBREAPER = 36
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
    seen: set[int] = field(default_factory=set)

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

    def notice(self) -> None:
        """Note who runs in the group: some end before it does, and their traces are removed with it."""
        self.seen.update(group_members(self.process.pid))

    async def end(self) -> int:
        """End the whole group at once, reap it, and return the child's exit code."""
        self.notice()
        await end_group(self.process.pid)
        code = await self.process.wait()
        await end_group(self.process.pid)
        reap_group(self.process.pid)
        remove_marks([self.process.pid, *self.seen])
        self.writer.close()
        return code


async def spawn(
    command: Command,
    listener: socket.socket,
    environment: Mapping[str, str],
    log: Path,
    output: int | None = None,
) -> Child:
    """Start the child with the listening socket and one end of a new line; what it prints goes to `log`.

    It also inherits the descriptor `output`, under the number that `OUTPUT_VARIABLE` names.
    """
    ours, theirs = socket.socketpair()
    shared = () if output is None else (output,)
    named = {} if output is None else {OUTPUT_VARIABLE: str(output)}
    with log.open("ab") as printed, theirs:
        process = await asyncio.create_subprocess_exec(
            *command(listener.fileno(), theirs.fileno()),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=printed,
            stderr=asyncio.subprocess.STDOUT,
            env={**environment, **named},
            pass_fds=(listener.fileno(), theirs.fileno(), *shared),
            start_new_session=True,
        )
    reader, writer = await asyncio.open_connection(sock=ours)
    return Child(process, reader, writer, log)


async def end_group(group: int) -> None:
    """Kill every process of `group` and wait until none runs; the trackers of shared memory go last."""
    kill_members(group, trackers=False)
    await _wait_empty(group, _TRACKER_SECONDS)
    kill_members(group, trackers=True)
    await _wait_empty(group, _END_SECONDS)


def reap_group(group: int) -> None:
    """Collect the exit codes of orphans of `group` that fell to this process."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-group, os.WNOHANG)[0]:
            pass


async def _wait_empty(group: int, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while group_members(group) and time.monotonic() < deadline:  # noqa: ASYNC110 - /proc has no events
        await asyncio.sleep(_POLL_SECONDS)
