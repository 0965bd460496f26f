"""A process group as the kernel shows it: who runs in it, how to end it, and what it leaves behind.

Used by the launcher, from outside, and by the engine's process, from inside, when the launcher is gone.
"""

from __future__ import annotations

import contextlib
import os
import platform
import signal
from pathlib import Path

_TRACKER = b"resource_tracker"


def group_members(group: int) -> list[int]:
    """Return the processes of `group` that run (zombies are not among them)."""
    if platform.system() != "Linux":
        return [group] if _exists(group) else []
    return [int(entry.name) for entry in Path("/proc").glob("[0-9]*") if _runs_in(entry, group)]


def kill_members(group: int, *, spare: int = 0, trackers: bool) -> list[int]:
    """Kill the processes of `group` except `spare`, and return them.

    Python's resource trackers are killed with `trackers` only: left alone they remove the shared memory
    of the others once those are gone, and end by themselves.
    """
    members = [process for process in group_members(group) if process != spare]
    chosen = [process for process in members if trackers or _TRACKER not in _command_line(process)]
    for process in chosen:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    return chosen


def remove_marks(processes: list[int]) -> None:
    """Remove the files that Intel's OpenMP leaves in shared memory when its process is killed."""
    for process in processes:
        for mark in Path("/dev/shm").glob(f"__KMP_REGISTERED_LIB_{process}_*"):  # noqa: S108 - where they are
            mark.unlink(missing_ok=True)


def _runs_in(entry: Path, group: int) -> bool:
    try:
        # pid (name) state parent group …; the name may hold spaces and brackets.
        state, _, member_of = (entry / "stat").read_bytes().rpartition(b")")[2].split()[:3]
    except (OSError, ValueError):
        return False
    return int(member_of) == group and state not in {b"Z", b"X"}


def _command_line(process: int) -> bytes:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return b""


def _exists(process: int) -> bool:
    try:
        os.kill(process, 0)
    except OSError:
        return False
    return True
