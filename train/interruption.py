"""Ctrl-C and SIGTERM during a run: one way to stop, and a moment in which stopping waits.

Invariant: a person never reads "nothing was registered" about a version that is there. Until `hold` the
first signal raises KeyboardInterrupt in the main thread; from then on all are ignored, because what is
being registered, or cleaned up, is finished in a moment.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, NoReturn, Self

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """Owns the two signals while it is entered, and gives them back afterwards."""

    def __init__(self) -> None:
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._interrupt) for number in _SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def hold(self) -> None:
        """Ignore both signals until the end."""
        for number in self._before:
            signal.signal(number, signal.SIG_IGN)

    def _interrupt(self, number: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG002
        self.hold()
        raise KeyboardInterrupt
