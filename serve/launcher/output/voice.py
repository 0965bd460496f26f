"""What the launcher says to its operator: line by line, and never at the cost of the launcher.

A reader that is gone, one that does not read, a full disk behind the standard output: none of them may end
or hold up the process that restarts the engine. Lines wait in a bounded queue for a thread of its own.
Invariant: saying a line neither raises nor waits.
"""

from __future__ import annotations

import os
import queue
import select
import sys
import threading
from collections.abc import Callable, Sequence

QUEUE_SIZE = 1000
"""Lines that wait for a reader; beyond it they are counted and dropped."""

_FULL_SECONDS = 1.0
_LAST_LINES_SECONDS = 2.0

Write = Callable[[str], None]


class Voice:
    """Says lines on the first of `outputs` that still has a reader; `shape` makes the line of a text."""

    def __init__(self, shape: Callable[[str], str] = str, outputs: Sequence[Write] | None = None) -> None:
        self._shape = shape
        self._outputs = list(standard_outputs() if outputs is None else outputs)
        self._waiting: queue.Queue[str | None] = queue.Queue(QUEUE_SIZE)
        self._lost = 0
        # A daemon: a reader that never reads must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name="wardrobe-voice", daemon=True)
        self._thread.start()

    def __call__(self, text: str) -> None:
        """Say one line, or count that there was no room for it."""
        try:
            self._waiting.put_nowait(self._shape(text))
        except queue.Full:
            self._lost += 1

    def close(self, seconds: float = _LAST_LINES_SECONDS) -> None:
        """Wait until what was said is written, for up to `seconds`."""
        try:
            self._waiting.put(None, timeout=seconds)
        except queue.Full:
            return
        self._thread.join(seconds)

    def _run(self) -> None:
        while (line := self._waiting.get()) is not None:
            try:
                self._tell(line)
            except Exception:  # noqa: BLE001 - no memory for a moment, say: the next line may be told
                self._lost += 1

    def _tell(self, line: str) -> None:
        lost, self._lost = self._lost, 0
        if lost and not self._write(self._shape(f"{lost} lines were lost: they could not be written")):
            self._lost += lost
        if not self._write(line):
            self._lost += 1

    def _write(self, line: str) -> bool:
        for output in list(self._outputs):
            try:
                output(line + "\n")
            except (BrokenPipeError, ValueError):  # gone for good, or closed
                self._outputs.remove(output)
                if self._outputs:
                    self._write(self._shape("the standard output has no reader any more: more follows here"))
            except OSError:
                continue  # a full disk: the next line may find room there
            else:
                return True
        return False


def standard_outputs() -> list[Write]:
    """Return the writers of this process's standard output and error, as far as they are open."""
    return [_writer(stream) for stream in (sys.stdout, sys.stderr) if stream is not None]


def _writer(stream: object) -> Write:
    try:
        descriptor: int = stream.fileno()  # type: ignore[attr-defined]
    except (OSError, ValueError, AttributeError):
        return lambda line: _to_stream(stream, line)
    encoding = getattr(stream, "encoding", None) or "utf-8"
    # Not through the stream: what it could not write it keeps, and fails with again at the very end.
    return lambda line: write_all(descriptor, line.encode(encoding, errors="replace"))


def _to_stream(stream: object, line: str) -> None:
    stream.write(line)  # type: ignore[attr-defined]
    stream.flush()  # type: ignore[attr-defined]


def write_all(descriptor: int, data: bytes) -> None:
    """Write all of `data`; a descriptor that does not block is waited for.

    Raises: OSError.
    """
    while data:
        try:
            data = data[os.write(descriptor, data) :]
        except BlockingIOError:
            if not select.select([], [descriptor], [], _FULL_SECONDS)[1]:
                raise


def open_standard_descriptors() -> None:
    """Open what the caller closed of the descriptors 0 to 2, so that no socket of ours gets such a number.

    Whatever an engine prints would go there.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
