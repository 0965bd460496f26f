"""Ties the life of vLLM's helper processes to that of their parent, under our launcher only.

Normally the launcher ends the engine's group, or the API server does when the launcher is gone. This is
for the rest: both killed at once. vLLM calls `install` in each of its processes. One that a fork server
made has two to die with: the server, by the kernel, and who asked for it, by the pipe between them.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import platform
import signal
import threading
from multiprocessing.connection import wait

from serve.engine.environment import SUPERVISED_VARIABLE

_PR_SET_PDEATHSIG = 1


def install() -> None:
    """Have the kernel kill this process when its parent dies (Linux, started by the launcher)."""
    if os.environ.get(SUPERVISED_VARIABLE) != "1" or platform.system() != "Linux":
        return
    if os.getpgrp() == os.getpid():
        # The API server itself: it must outlive the launcher long enough to end its whole group.
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if is_orphan():
        # The parent died while this process was importing: no signal will come for that any more.
        os.kill(os.getpid(), signal.SIGKILL)
    asked = multiprocessing.parent_process()
    if asked is not None and asked.pid != os.getppid():
        threading.Thread(target=_end_with, args=(asked.sentinel,), daemon=True).start()


def go_on_without_parent() -> None:
    """Have the kernel continue this process when its parent dies, lest it stand still for ever (Linux)."""
    if platform.system() == "Linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGCONT), 0, 0, 0)


def _end_with(sentinel: int) -> None:
    wait([sentinel])
    os.kill(os.getpid(), signal.SIGKILL)


def is_orphan() -> bool:
    """Return whether the parent has died: an adopter is in another process group, the parent never is."""
    try:
        return os.getpgid(os.getppid()) != os.getpgrp()
    except OSError:
        return True
