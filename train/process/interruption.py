"""Ctrl-C and SIGTERM during a run: one way to stop, and a moment in which stopping waits.

Invariant: a person never reads "nothing was registered" about a version that is there. At first a signal
raises KeyboardInterrupt in the main thread. After `defer` the first one is only noted, so that the run can
stop behind its step with a checkpoint, and the second one raises; `undefer` ends that. After `hold`, and
once one was raised, all are ignored: what is being registered, or cleaned up, is finished in a moment.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType
from typing import Any, Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """Owns the two signals while it is entered, and gives them back afterwards."""

    def __init__(self) -> None:
        self._before: dict[signal.Signals, Any] = {}
        self._on_request: Callable[[], None] | None = None
        self.requested = False

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._interrupt) for number in _SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def defer(self, on_request: Callable[[], None]) -> None:
        """From now on only note the first signal in `requested`, and call `on_request` in its handler."""
        self._on_request = on_request

    def undefer(self) -> None:
        """From now on the first signal raises again; raise for one that was noted meanwhile.

        Raises: KeyboardInterrupt.
        """
        self._on_request = None
        if self.requested:
            self.hold()
            raise KeyboardInterrupt

    def hold(self) -> None:
        """Ignore both signals until the end."""
        for number in self._before:
            signal.signal(number, signal.SIG_IGN)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        if self._on_request is not None and not self.requested:
            self.requested = True
            self._on_request()
            return
        self.hold()
        raise KeyboardInterrupt


@contextlib.contextmanager
def forwarded(send: Callable[[int], None]) -> Iterator[None]:
    """Hand each of the two signals to `send` within the block, for a process that only waits for others."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, lambda number, _frame: send(number)) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
