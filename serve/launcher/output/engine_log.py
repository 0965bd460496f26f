"""What one engine prints: through a pipe to us, its end kept in memory, all of it in a file where one can be.

The engine never sees the disk: a full one would end it in the middle of a line. Three parties, none of which
waits for the next: the loop takes what comes, a bounded queue holds it, a thread writes. Invariant: the
last words are there although nothing could be written.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from serve.launcher.output.aside import start_thread
from serve.launcher.output.log_file import LogFile

TAIL_BYTES = 256 * 1024
"""Last words that are kept in memory."""

WAITING_BYTES = 8 * 1024**2
"""What may wait for the disk; beyond it the log has a gap."""

_CHUNK_BYTES = 64 * 1024
_PIPE_BYTES = 1024**2
_LAST_CHUNKS = 4 * _PIPE_BYTES // _CHUNK_BYTES
_DISK_SECONDS = 2.0
_POLL_SECONDS = 0.005


class EngineLog:
    """The log of one start: give `descriptor` to the process, then `follow`; `close` after its end."""

    def __init__(self, file: LogFile) -> None:
        """Open the pipe.

        Raises: OSError: no descriptors.
        """
        self._file = file
        self._read, self.descriptor = os.pipe()
        os.set_blocking(self._read, False)
        with contextlib.suppress(OSError, AttributeError):  # more room for a burst, where the kernel gives it
            fcntl.fcntl(self._read, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self._tail = bytearray()
        self._queue: deque[bytes] = deque()
        self._queued = 0
        self._wake = threading.Condition()
        self._closed = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._opened = self._written = False
        with contextlib.suppress(RuntimeError):  # no thread now: this log is kept in memory only
            start_thread(self._write)

    @property
    def path(self) -> Path | None:
        """Return the file that is written, None while there is none."""
        return self._file.path

    async def named(self) -> str:
        """Return where the log goes, for people; a disk that does not answer is not waited for."""
        await self._until(lambda: self._opened, _DISK_SECONDS)
        return str(self.path) if self.path is not None else "in memory only"

    def follow(self) -> None:
        """Take what comes from now on; our copy of the process's end is closed."""
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._read, self._take)
        os.close(self.descriptor)
        self.descriptor = -1

    def words(self) -> str:
        """Return the last words so far."""
        return self._tail.decode(errors="replace")

    async def close(self) -> None:
        """Take what is left, give the disk a moment, and end."""
        if self._loop is not None and self._read >= 0:
            self._loop.remove_reader(self._read)
            for _ in range(_LAST_CHUNKS):  # nobody is left who writes, unless it cannot be killed
                if not self._take():
                    break
        for descriptor in (self._read, self.descriptor):
            if descriptor >= 0:
                os.close(descriptor)
        self._read = self.descriptor = -1
        with self._wake:
            self._closed = True
            self._wake.notify()
        await self._until(lambda: self._written, _DISK_SECONDS)

    async def _until(self, condition: Callable[[], bool], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not condition() and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(_POLL_SECONDS)  # a thread sets no event of a loop

    def _take(self) -> bool:
        """Take one chunk; return whether there may be more."""
        try:
            chunk = os.read(self._read, _CHUNK_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            chunk = b""
        if not chunk:  # every copy of the other end is closed
            if self._loop is not None:
                self._loop.remove_reader(self._read)
            return False
        self._tail += chunk
        if len(self._tail) > 2 * TAIL_BYTES:
            del self._tail[:-TAIL_BYTES]
        with self._wake:
            if self._queued + len(chunk) <= WAITING_BYTES:
                self._queue.append(chunk)
                self._queued += len(chunk)
                self._wake.notify()
        return True

    def _write(self) -> None:
        try:
            self._write_all()
        finally:
            self._written = True

    def _write_all(self) -> None:
        self._file.write(b"")
        self._opened = True
        while True:
            with self._wake:
                while not self._queue and not self._closed:
                    self._wake.wait()
                if not self._queue:
                    break
                data = b"".join(self._queue)
                self._queue.clear()
            with contextlib.suppress(Exception):  # the log is not worth the thread: the next words may fit
                self._file.write(data)
            with self._wake:
                self._queued -= len(data)
        self._file.close()
