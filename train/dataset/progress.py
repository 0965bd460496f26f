"""A progress bar that comes only when it takes longer than two seconds, and only on a terminal."""

from __future__ import annotations

import time
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from registry.cli import output

PATIENCE_SECONDS = 2.0
_LOOK_EVERY_BYTES = 1 << 18


class LateProgress:
    """Shows how much of `total` bytes was read; a context manager whose `advance` takes bytes."""

    def __init__(self, label: str, total: int) -> None:
        self._label, self._total = label, total
        self._started = time.monotonic()
        self._stack = ExitStack()
        self._step: output.Step | None = None
        self._held = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def advance(self, size_bytes: int) -> None:
        """Take note of bytes that were read."""
        self._held += size_bytes
        late = time.monotonic() - self._started > PATIENCE_SECONDS
        if not late or (self._step is not None and self._held < _LOOK_EVERY_BYTES):
            return
        if self._step is None:
            bar = output.progress(self._label, self._total, unit_bytes=True)
            self._step = self._stack.enter_context(bar)
        self._step(self._held)
        self._held = 0
