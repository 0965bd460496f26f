"""What this machine offers to the engine: an accelerator or cores, memory, and libraries to preload."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from serve.engine.memory import device_bytes, limit_bytes

TESTED_RELEASE = "0.32"
"""The vLLM release whose interfaces and start-up are followed where we take something of vLLM's place."""

_ACCELERATORS = ("/dev/nvidiactl", "/dev/kfd", "/dev/dri/renderD128")


@dataclass(frozen=True, slots=True)
class Library:
    """A shared library that vLLM on the CPU is faster with, unless one of its `rivals` is preloaded."""

    name: str
    paths: tuple[str, ...]
    remedy: str
    rivals: tuple[str, ...]

    def find(self) -> Path | None:
        """Return the first of `paths` that exists, or None."""
        return next((Path(path) for path in self.paths if Path(path).exists()), None)


@dataclass(frozen=True, slots=True)
class HostFacts:
    """The facts that defaults depend on; `libraries` in the order of LD_PRELOAD, none with a GPU.

    `cache_sized` says that vLLM's own variable already sizes the KV cache on the CPU. `processor` is a
    short name of the kind of processor: code that was compiled for one need not run on another.
    `memory_bytes` is what this process may have of the machine's; `device_bytes` is the memory of the first
    GPU, 0 where it is not known.
    """

    accelerator: bool
    cores: tuple[int, ...]
    memory_bytes: int
    libraries: tuple[Library, ...]
    cache_sized: bool = False
    processor: str = "any"
    device_bytes: int = 0


def this_machine() -> HostFacts:
    """Look at the machine that this process runs on."""
    # A laptop has a render node and the CPU wheel: the build that is installed decides, then the device.
    accelerator = not _cpu_build() and any(Path(path).exists() for path in _ACCELERATORS)
    return HostFacts(
        accelerator,
        _cores(),
        limit_bytes(),
        () if accelerator else _libraries(),
        cache_sized=bool(os.environ.get("VLLM_CPU_KVCACHE_SPACE")),
        processor=_processor(),
        device_bytes=device_bytes() if accelerator else 0,
    )


def is_tested(release: str) -> bool:
    """Return whether `release` of vLLM is one of `TESTED_RELEASE`."""
    return release.split("+", maxsplit=1)[0].split(".")[:2] == TESTED_RELEASE.split(".")


def cxx_compiler() -> Path | None:
    """Return the C++ compiler that torch would use: CXX, g++ or clang++."""
    names = (os.environ.get("CXX", ""), "g++", "clang++")
    found = (shutil.which(name) for name in names if name)
    return next((Path(path) for path in found if path), None)


def _processor() -> str:
    facts = [platform.machine(), platform.processor()]
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    facts += sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))})
    return f"{platform.machine()}-{hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:8]}"


def _cpu_build() -> bool:
    try:
        distribution("vllm-cpu")
    except PackageNotFoundError:
        return False
    return True


def _cores() -> tuple[int, ...]:
    if platform.system() == "Linux":
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def _libraries() -> tuple[Library, ...]:
    if platform.system() != "Linux":
        return ()
    machine = platform.machine()
    tcmalloc = Library(
        "libtcmalloc_minimal",
        (
            f"/usr/lib/{machine}-linux-gnu/libtcmalloc_minimal.so.4",
            "/usr/lib64/libtcmalloc_minimal.so.4",
            "/usr/lib/libtcmalloc_minimal.so.4",
        ),
        "install libtcmalloc-minimal4 (Debian, Ubuntu) or gperftools-libs (Fedora)",
        rivals=("libtcmalloc", "libjemalloc", "libmimalloc"),
    )
    iomp = Library(
        "libiomp5",
        (f"{sys.prefix}/lib/libiomp5.so",),
        "pip install intel-openmp",
        # vLLM stops with an assertion when two OpenMP run-times are preloaded.
        rivals=("libiomp", "libomp", "libgomp"),
    )
    return (tcmalloc, iomp) if machine == "x86_64" else (tcmalloc,)
