"""A process group as the kernel shows it: who runs in it, what they do, how to end it, and what it leaves.

Used by the launcher, from outside, and by the engine's process, from inside, when the launcher is gone.
"""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import signal
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")

_TRACKER = b"resource_tracker"
_NO_DESCRIPTORS = {errno.EMFILE, errno.ENFILE}


@dataclass(frozen=True, slots=True)
class Activity:
    """What processes did at one look.

    `ticks` is the CPU time of each so far, in clock ticks; `stopped` names those that a signal stopped;
    `traced`: a debugger holds one; `blocked`: one waits for a disk or a device and cannot be interrupted.
    """

    ticks: Mapping[int, int]
    stopped: tuple[str, ...] = ()
    traced: bool = False
    blocked: bool = False


def group_members(group: int) -> list[int]:
    """Return the processes of `group` that run (zombies are not among them).

    Raises: OSError: no descriptor is left to look with.
    """
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


def activity(processes: Iterable[int]) -> Activity:
    """Return what `processes` are doing; those that have ended are left out."""
    ticks: dict[int, int] = {}
    states: dict[int, tuple[bytes, str]] = {}
    for process in processes:
        try:
            name, fields = _stat(Path(f"/proc/{process}"))
            ticks[process] = int(fields[11]) + int(fields[12])
        except (OSError, ValueError, IndexError):
            continue
        states[process] = fields[0], f"process {process} ({name})"
    return Activity(
        ticks,
        tuple(words for state, words in states.values() if state == b"T"),
        traced=any(state == b"t" for state, _ in states.values()),
        blocked=any(state == b"D" for state, _ in states.values()),
    )


def _stat(entry: Path) -> tuple[str, list[bytes]]:
    """Return the name of a process and the fields behind it: state, parent, group, … (man 5 proc)."""
    # pid (name) state parent group …; the name may hold spaces and brackets.
    head, _, fields = (entry / "stat").read_bytes().rpartition(b")")
    return head.partition(b"(")[2].decode(errors="replace"), fields.split()


def _runs_in(entry: Path, group: int) -> bool:
    try:
        state, _, member_of = _stat(entry)[1][:3]
    except OSError as error:
        if error.errno in _NO_DESCRIPTORS:
            raise  # nothing is known then, least of all that it has ended
        return False
    except ValueError:
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
