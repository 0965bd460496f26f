"""Which processes of the worker train now: it says so on a pipe, and they stand still for requests.

A line is `begun PID`, or `left PID` where a task shall run to its end whatever is in flight. Each is held by
a descriptor of its process, so a number that another process has by now is never signalled.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterator

from serve.launcher.yielding import Signal, Yielding

TASKS_VARIABLE = "WARDROBE_WORKER_TASKS"
"""Tells the worker the descriptor of its end."""

_READ_BYTES = 4096


class WorkerTasks:
    """Our end of one worker's pipe."""

    def __init__(self, yielding: Yielding) -> None:
        """Raises: OSError: no descriptors."""
        self._yielding = yielding
        self._reading, self.writing = os.pipe()
        os.set_blocking(self._reading, False)
        self._held: dict[int, tuple[int, Signal]] = {}
        self._rest = b""

    @contextlib.contextmanager
    def following(self) -> Iterator[None]:
        """Follow the pipe within this block; behind it, every task runs."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._reading, self._hear)
        try:
            yield
        finally:
            loop.remove_reader(self._reading)
            self.let_go()
            self.close()

    def close(self) -> None:
        """Close our end: no worker was started with the other one, or it has ended."""
        os.close(self._reading)

    def let_go(self) -> None:
        """Let every task run from now on."""
        for pid in list(self._held):
            self._left(pid)

    def _hear(self) -> None:
        with contextlib.suppress(BlockingIOError):
            told = os.read(self._reading, _READ_BYTES)
            if not told:  # the worker has ended, and its tasks with it
                asyncio.get_running_loop().remove_reader(self._reading)
                return
            *lines, self._rest = (self._rest + told).split(b"\n")
            for line in lines:
                verb, _, number = line.partition(b" ")
                if number.isdigit():
                    (self._begun if verb == b"begun" else self._left)(int(number))

    def _begun(self, pid: int) -> None:
        with contextlib.suppress(OSError):  # it has ended
            descriptor = os.pidfd_open(pid)
            member = _to_process(descriptor)
            self._held[pid] = descriptor, member
            asyncio.get_running_loop().add_reader(descriptor, self._left, pid)
            self._yielding.add(member)

    def _left(self, pid: int) -> None:
        if (held := self._held.pop(pid, None)) is not None:
            descriptor, member = held
            self._yielding.remove(member)
            asyncio.get_running_loop().remove_reader(descriptor)
            os.close(descriptor)


def _to_process(descriptor: int) -> Signal:
    def send(number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            signal.pidfd_send_signal(descriptor, number)

    return send
