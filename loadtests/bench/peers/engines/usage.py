"""Processor time of a server and of everything else on the machine, from /proc.

A shared machine bends every time that a clock measures. What a token costs in processor time bends less,
and what others took says how far the clock may be believed.
"""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass
from pathlib import Path

from loadtests.live import descendants

QUIET_SHARE = 10.0
"""Up to this share of all cores, in per cent, other work is taken for none."""

QUIET_SECONDS = 60.0

_TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class ResourceUsage:
    """Seconds since some beginning: of the clock, of the server and its children, of us, of all cores."""

    clock: float
    server: float
    own: float
    all_cores: float

    @classmethod
    def now(cls, pid: int) -> ResourceUsage:
        """Read the counters of the server that `pid` leads."""
        server = sum(_seconds(one) for one in (pid, *descendants(pid)))
        return cls(time.monotonic(), server, time.process_time(), busy(Path("/proc/stat").read_text()))

    @classmethod
    async def when_quiet(
        cls, pid: int, bound_seconds: float = QUIET_SECONDS, *, look_seconds: float = 2.0
    ) -> float:
        """Wait until others leave the cores to us, `bound_seconds` at most; return the seconds waited."""
        began = time.monotonic()
        while time.monotonic() - began < bound_seconds:
            before = cls.now(pid)
            await asyncio.sleep(look_seconds)
            if cls.now(pid).others_share(before) <= QUIET_SHARE:
                break
        return time.monotonic() - began

    def others_share(self, before: ResourceUsage) -> float:
        """Return the part of all cores, in per cent, that neither the server nor we used since `before`."""
        seconds = (self.clock - before.clock) * (os.cpu_count() or 1)
        used = self.server - before.server + self.own - before.own
        return max(0.0, 100 * (self.all_cores - before.all_cores - used) / seconds)


def busy(stat: str) -> float:
    """Return the seconds that the cores were busy, from the text of /proc/stat (waiting is not busy)."""
    user, nice, system, _idle, _wait, irq, soft, steal, *_guests = map(
        int, stat.split("\n", maxsplit=1)[0].split()[1:]
    )
    return (user + nice + system + irq + soft + steal) / _TICK


def _seconds(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICK
