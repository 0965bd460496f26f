"""One task as a process of its own: started, asked to stop, ended, and never left behind.

Owns the child's side, too (`die_with_parent`): a task whose worker was killed is killed by the kernel, so
nobody trains a job that another worker has in hand.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from registry.errors import StorageFailed

PARENT = "WARDROBE_WORKER_PID"
"""The variable that tells a task who started it."""
TASKS = "WARDROBE_WORKER_TASKS"
"""The variable that tells a worker where to say which tasks run: a server stops them for requests."""
_PR_SET_PDEATHSIG = 1


class TaskProcess:
    """A task that runs; its output goes to `log`, and what is in it is read by nobody but people."""

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        *,
        environment: Mapping[str, str],
        inherited: Sequence[int] = (),
    ) -> None:
        variables = {**os.environ, **environment, PARENT: str(os.getpid())}
        try:
            with log.open("ab") as output:
                self._process = subprocess.Popen(
                    list(command), stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                    env=variables, pass_fds=tuple(inherited), start_new_session=True,
                )  # fmt: skip
        except OSError as error:
            raise StorageFailed(
                str(log), f"cannot be begun ({error})", "check the disk and the mount"
            ) from error
        self._asked = False

    @property
    def pid(self) -> int:
        """Return its process id."""
        return self._process.pid

    @property
    def asked(self) -> bool:
        """Tell whether it was asked to stop, or killed."""
        return self._asked

    def ended(self) -> int | None:
        """Return its exit code, None while it runs."""
        return self._process.poll()

    def stop(self) -> None:
        """Ask it, once, to stop behind its step with a checkpoint."""
        if not self._asked:
            self._asked = True
            self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once, and wait for that."""
        self._asked = True
        self._signal(signal.SIGKILL)
        self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)


def die_with_parent() -> None:
    """Have this process killed when the worker that started it dies; without one, nothing happens.

    Elsewhere than on Linux a thread looks every half second.
    """
    parent = int(os.environ.get(PARENT, "0"))
    if not parent:
        return
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    else:
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    if os.getppid() != parent:  # it died before this line
        os._exit(1)


def tasks_line() -> Callable[[str], None]:
    """Return what says a line to the server that started this worker; without one, nothing is said.

    Tasks do not inherit it. A server that does not read holds nobody up.
    """
    named = os.environ.pop(TASKS, "")
    if not named.isdigit():
        return lambda _line: None
    descriptor = int(named)
    os.set_blocking(descriptor, False)
    os.set_inheritable(descriptor, False)  # noqa: FBT003 - named so by nobody

    def say(line: str) -> None:
        with contextlib.suppress(OSError):
            os.write(descriptor, f"{line}\n".encode())

    return say


def _watch(parent: int) -> None:
    waiting = threading.Event()
    while os.getppid() == parent:
        waiting.wait(0.5)
    os._exit(1)
