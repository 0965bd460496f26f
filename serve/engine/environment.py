"""The environment of the engine's processes: preloaded libraries, threads, and vLLM's own variables.

It says what is set and what is missing; it reads the file system, and changes nothing. The figures are
from two cores with SmolLM2-135M and 32 streams: vLLM's defaults 276 tok/s, both cores 324, with
libtcmalloc_minimal and libiomp5 preloaded 444.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from serve.engine.args import accelerator_present
from serve.settings import HANDOVER_VARIABLE, ServeSettings

CPU_LORA_VARIABLE = "WARDROBE_CPU_LORA"
"""Read by `serve.engine.cpu_lora.plugin` in every vLLM process: `grouped` or `stock`."""

SUPERVISED_VARIABLE = "WARDROBE_SUPERVISED"
"""Set by the launcher: the plugin then ties the life of vLLM's helper processes to their parent's."""

REFUSED = ("VLLM_ALLOW_RUNTIME_LORA_UPDATING",)
"""Variables that would open a public endpoint which loads any path of the machine; never passed on."""


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


def libraries() -> tuple[Library, ...]:
    """Return the libraries to preload on this machine, in the order of LD_PRELOAD."""
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


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of `serve --check`: what was looked at, whether it is well, and what to do."""

    subject: str
    ok: bool
    detail: str


def check(settings: ServeSettings) -> list[Finding]:
    """Return what is set and what is missing for the engine on this machine."""
    if accelerator_present():
        return [Finding("device", ok=True, detail="an accelerator is present; CPU libraries are not needed")]
    findings = [Finding("device", ok=True, detail=f"CPU, {len(_cores())} cores")]
    for library in libraries():
        found = library.find()
        if not settings.engine.preload_libraries:
            findings.append(Finding(library.name, ok=True, detail="switched off by engine.preload_libraries"))
        elif found:
            findings.append(Finding(library.name, ok=True, detail=f"preloaded from {found}"))
        else:
            findings.append(Finding(library.name, ok=False, detail=f"not found; {library.remedy}"))
    return findings


def engine_environment(settings: ServeSettings, inherited: Mapping[str, str]) -> dict[str, str]:
    """Return the child's whole environment; a variable that the user has set is left as it is."""
    environment = {name: value for name, value in inherited.items() if name not in REFUSED}
    defaults = {
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        # The base is a folder and adapters come from the registry: nothing is ever fetched by name.
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    if not accelerator_present():
        defaults |= _cpu_defaults(settings, environment)
    environment = defaults | environment
    if not accelerator_present() and settings.engine.preload_libraries:
        environment["LD_PRELOAD"] = _preload(environment.get("LD_PRELOAD", ""))
    environment[CPU_LORA_VARIABLE] = settings.engine.cpu_lora
    environment[SUPERVISED_VARIABLE] = "1"
    environment[HANDOVER_VARIABLE] = settings.model_dump_json()
    # The Python front end is the one that runs middleware.
    environment["VLLM_USE_RUST_FRONTEND"] = "0"
    return environment


def _cpu_defaults(settings: ServeSettings, environment: Mapping[str, str]) -> dict[str, str]:
    cores = _cores()
    if _world_size(settings) > 1:
        return {}  # one list per worker: vLLM's own binding by memory node is right there
    # NOTE: "auto" reserves a core for the scheduler, and takes one logical CPU per physical core.
    # On a small machine that is half of it.
    bind = {"VLLM_CPU_OMP_THREADS_BIND": ",".join(str(core) for core in cores)} if len(cores) <= 8 else {}
    return {name: value for name, value in bind.items() if name not in environment}


def _world_size(settings: ServeSettings) -> int:
    sizes = [
        value
        for name, value in settings.vllm.items()
        if name.replace("-", "_") in {"tensor_parallel_size", "pipeline_parallel_size"}
    ]
    return max((size for size in sizes if isinstance(size, int)), default=1)


def _cores() -> list[int]:
    if platform.system() == "Linux":
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _preload(present: str) -> str:
    free = [library for library in libraries() if not any(rival in present for rival in library.rivals)]
    found = [str(path) for library in free if (path := library.find())]
    return ":".join([*found, *filter(None, present.split(":"))])
