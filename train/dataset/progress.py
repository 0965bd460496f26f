"""A progress bar that comes only when it takes longer than two seconds, and only on a terminal."""

from __future__ import annotations

import time
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from registry.cli import output

PATIENCE_SECONDS = 2.0
_SHOWN_EVERY_BYTES = 1 << 18


class LateProgress:
    """Shows how far a check is, phase by phase; a context manager."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._stack = ExitStack()
        self._label, self._total, self._in_bytes = "", 0, False
        self._step: output.AdvanceBar | None = None
        self._held = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def phase(self, label: str, total: int, *, in_bytes: bool = False) -> None:
        """Begin a phase of `total` steps or bytes, which ends the one before."""
        self._stack.close()
        self._label, self._total, self._in_bytes = label, total, in_bytes
        self._step, self._held = None, 0
        self.advance(0)

    def advance(self, amount: int) -> None:
        """Take note of steps or bytes that are done."""
        self._held += amount
        if self._step is None:
            if time.monotonic() - self._started <= PATIENCE_SECONDS:
                return
            bar = output.progress(self._label, self._total, unit_bytes=self._in_bytes)
            self._step = self._stack.enter_context(bar)
        elif self._in_bytes and self._held < _SHOWN_EVERY_BYTES:
            return
        self._step(self._held)
        self._held = 0
