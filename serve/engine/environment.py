"""The environment of the engine's processes: preloaded libraries, threads, and vLLM's own variables.

It says what is set and what is missing, and changes nothing itself. The figures are
from two cores with SmolLM2-135M and 32 streams: vLLM's defaults 276 tok/s, both cores 324, with
libtcmalloc_minimal and libiomp5 preloaded 444. Threads that do not spin answer 16 streams with 597 tok/s
instead of 556, and one or four alike (58 and 211; another run).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from registry.foreign import SAFE_PATH
from serve.engine.machine import HostFacts, Library, cxx_compiler, this_machine
from serve.settings import HANDOVER_VARIABLE, ServeSettings

CPU_LORA_VARIABLE = "WARDROBE_CPU_LORA"
"""Read by `serve.engine.cpu_lora.plugin` in every vLLM process: `grouped` or `stock`."""

COMPILE_VARIABLE = "WARDROBE_COMPILE"
"""Read by `serve.engine.cpu_lora.compilation`: `auto`, `on` or `off`.

The launcher makes `later` of `auto` where no compiled code was found (the engine serves uncompiled), and
`made` where some was (the engine takes that, and compiles nothing itself).
"""

NOTE_VARIABLE = "WARDROBE_COMPILED_NOTE"
"""Set with `made`: the note that says so, which becomes a failure when what it names cannot be used."""

SUPERVISED_VARIABLE = "WARDROBE_SUPERVISED"
"""Set by the launcher: the plugin then ties the life of vLLM's helper processes to their parent's."""

STEP_TOKENS_VARIABLE = "WARDROBE_STEP_TOKENS"
"""Read by `serve.engine.steps.plugin`: tokens of a flood in a step that groups share; 0: vLLM's steps."""

REFUSED = ("VLLM_ALLOW_RUNTIME_LORA_UPDATING",)
"""Variables that would open a public endpoint which loads any path of the machine; never passed on."""

SMALL_MACHINE_CORES = 8
"""Up to here every core computes; beyond, vLLM's own binding leaves one to the scheduler."""


@dataclass(frozen=True, slots=True)
class PreflightFinding:
    """One line of `serve --check`: what was looked at, whether it is well, and what to do.

    `information` marks what is told and cannot be well or wrong.
    """

    subject: str
    ok: bool
    detail: str
    information: bool = False


def check(settings: ServeSettings, machine: HostFacts) -> list[PreflightFinding]:
    """Return what is set and what is missing for the engine on `machine`."""
    if machine.accelerator:
        return [
            PreflightFinding(
                "device", ok=True, detail="an accelerator is present; CPU libraries are not needed"
            )
        ]
    findings = [PreflightFinding("device", ok=True, detail=f"CPU, {len(machine.cores)} cores")]
    return [*findings, *(_look_for(library, settings) for library in machine.libraries), _compiling(settings)]


def engine_environment(
    settings: ServeSettings, inherited: Mapping[str, str], machine: HostFacts | None = None
) -> dict[str, str]:
    """Return the child's whole environment; a variable that the user has set is left as it is.

    `machine` is this one unless given.
    """
    machine = machine or this_machine()
    environment = {name: value for name, value in inherited.items() if name not in REFUSED}
    caches = cache_variables(settings.root.absolute() / "cache", machine)
    environment = _defaults(settings, machine) | caches | environment | dict(SAFE_PATH)
    if machine.libraries and settings.engine.preload_libraries:
        environment["LD_PRELOAD"] = _preload(machine.libraries, environment.get("LD_PRELOAD", ""))
    environment[CPU_LORA_VARIABLE] = settings.engine.cpu_lora
    environment[COMPILE_VARIABLE] = settings.engine.compile
    environment[SUPERVISED_VARIABLE] = "1"
    environment[STEP_TOKENS_VARIABLE] = str(settings.engine.step_tokens)
    environment[HANDOVER_VARIABLE] = settings.model_dump_json()
    # The Python front end is the one that runs middleware.
    environment["VLLM_USE_RUST_FRONTEND"] = "0"
    return environment


def _compiling(settings: ServeSettings) -> PreflightFinding:
    if settings.engine.compile == "off":
        return PreflightFinding("compilation", ok=True, detail="switched off by engine.compile")
    found = cxx_compiler()
    if found is None:
        return PreflightFinding(
            "compilation", ok=False, detail="no C++ compiler found; install g++ or set CXX"
        )
    when = "before it serves" if settings.engine.compile == "on" else "beside the first start, for later ones"
    return PreflightFinding("compilation", ok=True, detail=f"with {found}, {when}")


def _look_for(library: Library, settings: ServeSettings) -> PreflightFinding:
    found = library.find()
    if not settings.engine.preload_libraries:
        return PreflightFinding(library.name, ok=True, detail="switched off by engine.preload_libraries")
    if found:
        return PreflightFinding(library.name, ok=True, detail=f"preloaded from {found}")
    return PreflightFinding(library.name, ok=False, detail=f"not found; {library.remedy}")


def _defaults(settings: ServeSettings, machine: HostFacts) -> dict[str, str]:
    defaults = {
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        # The base is a folder and adapters come from the registry: nothing is ever fetched by name.
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    if not machine.accelerator:
        # vLLM sets it too, for what it starts; a process that is forked has imported torch before that.
        # Compiled code keeps to the threads' binding by it, and its key holds it.
        defaults["TORCHINDUCTOR_CPP_DYNAMIC_THREADS"] = "1"
    # NOTE: vLLM's "auto" reserves a core for the scheduler, and takes one logical CPU per physical core:
    # half of a small machine. With several workers its binding by memory node is right.
    small = len(machine.cores) <= SMALL_MACHINE_CORES and _world_size(settings) == 1
    if small and not machine.accelerator:
        defaults["VLLM_CPU_OMP_THREADS_BIND"] = ",".join(str(core) for core in machine.cores)
        # Threads that spin between two steps take the core that the API server needs then.
        defaults |= {"KMP_BLOCKTIME": "0", "OMP_WAIT_POLICY": "passive"}
    return defaults


def cache_variables(caches: Path, machine: HostFacts | None = None) -> dict[str, str]:
    """Return where compiled code is kept: in `caches`, by the kind of processor it was compiled for."""
    folder = caches / (machine or this_machine()).processor
    return {"VLLM_CACHE_ROOT": str(folder / "vllm"), "NUMBA_CACHE_DIR": str(folder / "numba")}


def _world_size(settings: ServeSettings) -> int:
    sizes = [
        value
        for name, value in settings.vllm.items()
        if name.replace("-", "_") in {"tensor_parallel_size", "pipeline_parallel_size"}
    ]
    return max((size for size in sizes if isinstance(size, int)), default=1)


def _preload(libraries: tuple[Library, ...], present: str) -> str:
    free = [library for library in libraries if not any(rival in present for rival in library.rivals)]
    found = [str(path) for library in free if (path := library.find())]
    return ":".join([*found, *filter(None, present.split(":"))])
