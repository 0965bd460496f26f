"""Whether the process that does some work still lives.

On the machine (and in the process namespace) that it runs in, this is a fact: the process id with its start
time. From another machine it is how long ago it was heard of; the clocks of machines that share a root must
not differ by a minute.
"""

from __future__ import annotations

import contextlib
import os
import platform
from dataclasses import dataclass
from pathlib import Path

from registry.errors import StorageFailed
from registry.storage import disk


@dataclass(frozen=True, slots=True)
class Owner:
    """The process that does the work; `host` names machine, boot and process namespace."""

    host: str
    pid: int
    started: str


def this_process() -> Owner:
    """Return the process that asks."""
    pid = os.getpid()
    return Owner(host=this_host(), pid=pid, started=_start(pid) or "")


def is_alive(owner: Owner, age_seconds: float, silence_seconds: float) -> bool:
    """Tell whether `owner` lives; it was last heard of `age_seconds` ago.

    Only from another machine the age counts: one that was silent for longer than `silence_seconds` is dead.
    """
    if owner.host != this_host():
        return age_seconds <= silence_seconds
    return _start(owner.pid) == owner.started


def this_host() -> str:
    """Return what no other machine, boot or process namespace is called."""
    boot = namespace = ""
    with contextlib.suppress(StorageFailed):
        boot = disk.read(Path("/proc/sys/kernel/random/boot_id")).decode("ascii").strip()
    with contextlib.suppress(OSError):
        namespace = str(Path("/proc/self/ns/pid").readlink())
    return f"{platform.node()} {boot} {namespace}".strip()


def _start(pid: int) -> str | None:
    """Return when a process began, in the kernel's ticks; None if there is none or it is a zombie."""
    try:
        text = disk.read(Path(f"/proc/{pid}/stat")).decode(errors="replace")
    except StorageFailed:
        return None if disk.exists(Path("/proc/self/stat")) else _start_without_proc(pid)
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
