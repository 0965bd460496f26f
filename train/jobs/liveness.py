"""Whether the process that runs a job still lives.

On the machine (and in the process namespace) that the job runs in, this is a fact: the process id with its
start time. From another machine it is the age of the job's status, which a living run renews every few
seconds; the clocks of machines that share a root must not differ by a minute.
"""

from __future__ import annotations

import contextlib
import os
import platform
from pathlib import Path

from registry.api.documents import Document

SILENCE_SECONDS = 60.0
"""So long may a run on another machine be silent before it counts as dead."""


class Owner(Document):
    """The process that runs a job; `host` names machine, boot and process namespace."""

    host: str
    pid: int
    started: str


def this_process() -> Owner:
    """Return the process that asks."""
    pid = os.getpid()
    return Owner(host=_host(), pid=pid, started=_start(pid) or "")


def is_alive(owner: Owner, age_seconds: float) -> bool:
    """Tell whether `owner` lives; `age_seconds` is how long ago it last renewed its status."""
    if owner.host != _host():
        return age_seconds <= SILENCE_SECONDS
    return _start(owner.pid) == owner.started


def _host() -> str:
    boot = namespace = ""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        namespace = str(Path("/proc/self/ns/pid").readlink())
    return f"{platform.node()} {boot} {namespace}".strip()


def _start(pid: int) -> str | None:
    """Return when a process began, in the kernel's ticks; None if there is none or it is a zombie."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None if Path("/proc/self/stat").exists() else _start_without_proc(pid)
    fields = text.rpartition(")")[2].split()  # the name before it may hold blanks and brackets
    return None if fields[0] in {"Z", "X"} else fields[19]


def _start_without_proc(pid: int) -> str | None:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        return ""
    return ""
