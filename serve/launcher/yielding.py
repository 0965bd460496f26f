"""Work that stands still while requests are in flight, to the processor: trainings, and what compiles.

Even the lowest priority costs those who are served: caches, memory, and each moment in which a thread of the
engine waits by giving way. So the engine says on a pipe when it begins to have requests in flight and when it
has none (`serve.router.busy`), and this process stops and continues the others by signals. Invariants: the
hot path pays for the first and the last of them only; none stands still for longer than `hold_seconds`, then
it has `SLICE_SECONDS`; an engine that is gone has nothing in flight; what is let go of runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Iterator

from serve.settings import BUSY, BUSY_VARIABLE

SLICE_SECONDS = 1.0
"""So long runs what has stood still for `hold_seconds`, whatever is in flight."""

_READ_BYTES = 4096

Signal = Callable[[signal.Signals], None]
"""Sends a signal to a process or a group of them; one that has ended is no fault."""


class Yielding:
    """The pipe, and who stands still; it belongs to one event loop."""

    def __init__(self, hold_seconds: float, slice_seconds: float = SLICE_SECONDS) -> None:
        """Raises: OSError: no descriptors."""
        self.hold_seconds, self.slice_seconds = hold_seconds, slice_seconds
        self._reading, self._writing = os.pipe()
        os.set_blocking(self._reading, False)
        os.set_blocking(self._writing, False)  # nobody who reads slowly holds a request up
        self._members: list[Signal] = []
        self._busy = self._still = False
        self._timer: asyncio.TimerHandle | None = None

    @property
    def descriptor(self) -> int:
        """Return the end of the pipe that engines inherit."""
        return self._writing

    def variables(self) -> dict[str, str]:
        """Return what tells an engine of it."""
        return {BUSY_VARIABLE: str(self._writing)}

    def start(self) -> None:
        """Follow the pipe on this event loop."""
        asyncio.get_running_loop().add_reader(self._reading, self._hear)

    def close(self) -> None:
        """Let everybody go on, and follow nothing any more."""
        self.forget()
        asyncio.get_running_loop().remove_reader(self._reading)
        os.close(self._reading)
        os.close(self._writing)

    def forget(self) -> None:
        """Take the engine for one without requests: it is gone."""
        self._drain()
        self._set(busy=False)

    @contextlib.contextmanager
    def holding(self, member: Signal) -> Iterator[None]:
        """Have `member` stand still within this block while requests are in flight; behind it, it runs."""
        self.add(member)
        try:
            yield
        finally:
            self.remove(member)

    def add(self, member: Signal) -> None:
        """Have `member` stand still while requests are in flight."""
        self._members.append(member)
        if self._still:
            member(signal.SIGSTOP)

    def remove(self, member: Signal) -> None:
        """Let `member` run from now on; one that is not there is left as it is."""
        if member in self._members:
            self._members.remove(member)
            member(signal.SIGCONT)

    def _hear(self) -> None:
        told = self._drain()
        if told:
            self._set(busy=told.endswith(BUSY))

    def _drain(self) -> bytes:
        """Return what the pipe holds; its last byte is what counts."""
        told = b""
        with contextlib.suppress(BlockingIOError):
            while more := os.read(self._reading, _READ_BYTES):
                told = more
        return told

    def _set(self, *, busy: bool) -> None:
        if busy == self._busy:
            return
        self._busy = busy
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if busy:
            self._hold()
        else:
            self._give(signal.SIGCONT)

    def _hold(self) -> None:
        self._give(signal.SIGSTOP)
        self._timer = asyncio.get_running_loop().call_later(self.hold_seconds, self._relent)

    def _relent(self) -> None:
        self._give(signal.SIGCONT)
        self._timer = asyncio.get_running_loop().call_later(self.slice_seconds, self._hold)

    def _give(self, number: signal.Signals) -> None:
        self._still = number is signal.SIGSTOP
        for member in self._members:
            member(number)


def to_group(group: int) -> Signal:
    """Return what signals a process group whose leader is this process's own child."""

    def send(number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, number)

    return send
