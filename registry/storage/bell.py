"""The bell of one folder: whoever waits is woken when a name in it changes, where the kernel tells of that.

Owns inotify, which Linux has: a change by any process of this machine wakes within milliseconds. A change by
another machine (NFS) does not, nor does any where the watch cannot be set up; so it only ever shortens a
wait, and who waits looks for himself. Invariants: nothing here raises; no descriptor outlives `close`; a
storm of changes takes a fifth of a core at most.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import select
import sys
import threading
import time
from pathlib import Path

_log = logging.getLogger(__name__)
_libc = ctypes.CDLL(None, use_errno=True)

_GATHER_SECONDS = 0.005  # what a burst of changes is waited for, so that one look finds them all
_REST = 4.0  # rest after a look, in times of what the look took
_EVENT_BYTES = 64 * 1024
# include/uapi/linux/inotify.h
_ATTRIB, _MOVED_TO, _DELETE_SELF, _MOVE_SELF, _ONLYDIR = 0x4, 0x80, 0x400, 0x800, 0x1000000
_MASK = _ATTRIB | _MOVED_TO | _DELETE_SELF | _MOVE_SELF | _ONLYDIR


class Bell:
    """Wakes the one thread that waits on it when a name appears, or is stamped, in `folder`.

    `arm` before each look at the folder: what changes after it ends the next `wait`.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = os.fsencode(folder)
        self._lock = threading.Lock()
        self._released = threading.Event()
        self._kernel: _Inotify | None = None
        self._refused = False
        self._looked_from = self._rest_until = 0.0

    def is_armed(self) -> bool:
        """Return whether a change on this machine is told at once; else there is the poll alone."""
        return self._kernel is not None and self._kernel.watch >= 0

    def arm(self) -> None:
        """Watch the folder that has the name now: it may be another one than before, or none."""
        self._looked_from = time.monotonic()
        try:
            with self._lock:
                if self._kernel is None and not self._released.is_set() and sys.platform == "linux":
                    self._kernel = _Inotify()
            if self._kernel is not None:
                self._kernel.arm(self._folder)
        except OSError as error:
            if not self._refused:
                _log.info("changes are noticed by the poll alone: inotify refused (%s)", error)
            self._refused = True

    def wait(self, seconds: float) -> None:
        """Return after `seconds`, or shortly after a change in the folder, or at once when released."""
        kernel = self._kernel
        if kernel is None or self._released.is_set():
            self._released.wait(seconds)
            return
        now = time.monotonic()
        deadline = now + seconds
        if self._looked_from:
            self._rest_until = now + _REST * (now - self._looked_from)
        if kernel.wait(seconds) and not self._released.is_set():
            now = time.monotonic()
            self._released.wait(min(max(now + _GATHER_SECONDS, self._rest_until), deadline) - now)
            kernel.drain()

    def release(self) -> None:
        """End the wait of the other thread, and every later one."""
        with self._lock:
            self._released.set()
            if self._kernel is not None:
                self._kernel.wake()

    def close(self) -> None:
        """Give the descriptors back; the waits that follow are the poll's."""
        with self._lock:
            kernel, self._kernel = self._kernel, None
            self._released.set()
            if kernel is not None:
                kernel.close()


class _Inotify:
    """One inotify instance with one watch, and an eventfd that ends a wait. `watch` is -1 without one."""

    def __init__(self) -> None:
        self.watch = -1
        self._events = _checked(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        try:
            self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        except OSError:
            os.close(self._events)
            raise
        self._poll = select.poll()
        self._poll.register(self._events, select.POLLIN)
        self._poll.register(self._wake, select.POLLIN)

    def arm(self, folder: bytes) -> None:
        """Watch `folder`, which costs one call where it is watched already. Raises: OSError."""
        before, self.watch = self.watch, -1
        try:
            self.watch = _checked(_libc.inotify_add_watch(self._events, folder, _MASK))
        except FileNotFoundError:
            pass  # it may come back
        finally:
            if before not in {-1, self.watch}:
                _libc.inotify_rm_watch(self._events, before)  # gone with its folder, or not

    def wait(self, seconds: float) -> bool:
        """Return whether something happened within `seconds`."""
        return bool(self._poll.poll(max(0.0, seconds) * 1_000.0))

    def drain(self) -> None:
        """Forget what happened until now."""
        with contextlib.suppress(BlockingIOError):
            while os.read(self._events, _EVENT_BYTES):
                pass

    def wake(self) -> None:
        os.eventfd_write(self._wake, 1)

    def close(self) -> None:
        os.close(self._events)
        os.close(self._wake)


def _checked(answer: int) -> int:
    if answer < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return answer
