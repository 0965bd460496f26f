"""Memory that this process may have: the machine's, or less where a control group limits it."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterator
from pathlib import Path

GROUPS = Path("/sys/fs/cgroup")
"""Where control groups are mounted; version 1 has its `memory` folder in it."""

_UNLIMITED = 2**60
"""Version 1 writes about 2^63 where nothing limits."""


def limit_bytes(process: Path = Path("/proc/self"), groups: Path = GROUPS) -> int:
    """Return the memory that this process may have in all: the machine's, or its control group's."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([machine, *(limit for limit, _ in _limits(process, groups))])


def available_bytes(
    process: Path = Path("/proc/self"), groups: Path = GROUPS, machine: Path = Path("/proc/meminfo")
) -> int | None:
    """Return the memory that can still be taken without swapping; None where that cannot be read."""
    try:
        lines = (line.split() for line in machine.read_text().splitlines())
        free = next(int(line[1]) * 1024 for line in lines if line[0] == "MemAvailable:")
    except (OSError, StopIteration, ValueError, IndexError):
        return None
    return max(min([free, *(limit - used for limit, used in _limits(process, groups))]), 0)


def device_bytes() -> int:
    """Return the memory of the first NVIDIA GPU, by its driver's library; 0 where it does not say.

    It makes no context on the device.
    """
    try:
        driver = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return 0
    device, memory = ctypes.c_void_p(), (ctypes.c_ulonglong * 3)()  # total, free, used
    asked: tuple[Callable[[], int], ...] = (
        driver.nvmlInit_v2,
        lambda: driver.nvmlDeviceGetHandleByIndex_v2(0, ctypes.byref(device)),
        lambda: driver.nvmlDeviceGetMemoryInfo(device, ctypes.byref(memory)),
    )
    found = int(memory[0]) if all(ask() == 0 for ask in asked) else 0
    driver.nvmlShutdown()
    return found


def _limits(process: Path, groups: Path) -> Iterator[tuple[int, int]]:
    """Yield limit and use, in bytes, of each group above this process that has a limit."""
    for folder in _folders(process, groups):
        for limit, used in (("memory.max", "memory.current"), _VERSION_1):
            bound = _number(folder / limit)
            if bound is not None and bound < _UNLIMITED:
                yield bound, max((_number(folder / used) or 0) - _reclaimable(folder), 0)


_VERSION_1 = ("memory.limit_in_bytes", "memory.usage_in_bytes")


def _folders(process: Path, groups: Path) -> Iterator[Path]:
    """Yield the folders of this process's group and of those above it, of either version."""
    try:
        lines = (process / "cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        top = groups / "memory" if controllers else groups
        below = top / path.lstrip("/")
        yield from (one for one in (below, *below.parents) if one == top or top in one.parents)


def _reclaimable(folder: Path) -> int:
    """Return the bytes of the page cache, which the kernel gives back before it refuses memory."""
    try:
        lines = (line.split() for line in (folder / "memory.stat").read_text().splitlines())
        return next(int(value) for name, value in lines if name in {"inactive_file", "total_inactive_file"})
    except (OSError, StopIteration, ValueError):
        return 0


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # not there, or "max"
        return None
