"""Keeps vLLM's compilation on the CPU although LoRA is on, where the operators of `operator` allow it.

vLLM 0.32's CPU platform sets the mode to NONE as soon as LoRA is on, which costs the base model itself a
third of its speed. Here the platform's check runs as it is, and the mode that it chose before the LoRA
question is set again: DYNAMO_TRACE_ONCE with inductor. It decides; it compiles nothing itself.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from serve.engine.compiled.code import CompiledCode
from serve.engine.environment import COMPILE_VARIABLE, NOTE_VARIABLE
from serve.engine.machine import cxx_compiler

Say = Callable[[str], None]

RECORD_VARIABLE = "WARDROBE_COMPILED_RECORD"
"""Names a file that takes the path of each model that is compiled, or loaded compiled, one a line."""

_log = logging.getLogger("vllm.wardrobe.cpu_lora")

SEMANTICS = 1
"""Counts up when code that was compiled with an older version of the operators must not be used."""


def keep(platform: Any, say: Say) -> None:
    """Wrap `platform.check_and_update_config`; calling it again changes nothing."""
    original = platform.check_and_update_config.__func__
    if hasattr(original, "__wrapped__"):
        return

    @functools.wraps(original)
    def check_and_update_config(cls: Any, vllm_config: Any) -> None:
        from vllm.config import CompilationMode

        wanted = vllm_config.compilation_config.mode == CompilationMode.VLLM_COMPILE
        original(cls, vllm_config)
        if vllm_config.lora_config is None or not wanted:
            return
        reason = objection(vllm_config)
        if reason is None:
            vllm_config.compilation_config.mode = CompilationMode.DYNAMO_TRACE_ONCE
            _mark(vllm_config)
            say(f"LoRA on the CPU: {_PLANS.get(_choice(), _PLANS['on'])}")
        else:
            say(f"LoRA on the CPU: the model is not compiled: {reason}")

    platform.check_and_update_config = classmethod(check_and_update_config)


def objection(vllm_config: Any) -> str | None:
    """Return why the model must not be compiled with LoRA, or None when it may be."""
    choice = _choice()
    if choice == "off":
        return f"{COMPILE_VARIABLE}=off"
    if choice == "later":
        return "there is no compiled code for this configuration yet"
    for name in ("fully_sharded_loras", "enable_tower_connector_lora"):
        if getattr(vllm_config.lora_config, name, False):
            return f"{name} is on"
    if cxx_compiler() is None:
        return "there is no C++ compiler; install g++ or clang++, or set CXX"
    if choice == "auto" and os.environ.get("VLLM_DISABLE_COMPILE_CACHE", "0") == "1":
        return (
            "what is compiled would be lost (VLLM_DISABLE_COMPILE_CACHE); engine.compile = on does it anyway"
        )
    return None


_PLANS = {
    "on": "the model is compiled; the first start takes a minute longer",
    "made": "the model's compiled code is taken from the cache",
}


def _choice() -> str:
    return os.environ.get(COMPILE_VARIABLE, "auto")


def _mark(vllm_config: Any) -> None:
    """Let the compiled code's key hold what vLLM's own leaves out: which modules call the operators."""
    targets = getattr(vllm_config.lora_config, "target_modules", None)
    mark = f"{SEMANTICS} {sorted(targets or [])}"
    if isinstance(vllm_config.additional_config, dict):
        vllm_config.additional_config["wardrobe_cpu_lora"] = mark


def mend_loading() -> None:
    """Let vLLM load again what it has compiled and kept; called in the worker, before the model runs.

    NOTE: vLLM 0.32 keeps the code of DYNAMO_TRACE_ONCE, and then fails to load it, since it calls a method
    (`finalize_loading`) that only its own backend's code has: each start compiled anew, with LoRA or
    without. Remove when vLLM asks whether there is one.
    """
    import torch
    from vllm.compilation import decorators

    original = decorators._try_load_aot_compiled_fn  # noqa: SLF001
    if hasattr(original, "__wrapped__"):
        return

    @functools.wraps(original)
    def try_load(model: Any, path: str) -> Any:
        _record(path)
        load = torch.compiler.load_compiled_function
        torch.compiler.load_compiled_function = functools.partial(_loaded, load)
        try:
            found = original(model, path)
        finally:
            torch.compiler.load_compiled_function = load
        return _instead(path) if found is None and _choice() == "made" else found

    decorators._try_load_aot_compiled_fn = try_load  # noqa: SLF001


def _loaded(load: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    found = load(*arguments, **named)
    compiled = found._artifacts.compiled_fn  # noqa: SLF001
    if not hasattr(compiled, "finalize_loading"):
        compiled.finalize_loading = _nothing
    return found


def _record(path: str) -> None:
    record = os.environ.get(RECORD_VARIABLE)
    if record:
        with Path(record).open("a") as file:
            file.write(f"{path}\n")


def _instead(path: str) -> Callable[..., Any]:
    """Return the model's own forward: whoever was promised compiled code does not wait for a compiler."""
    _log.warning("compiled code cannot be used (%s); the model runs uncompiled, and is compiled anew", path)
    if note := os.environ.get(NOTE_VARIABLE):
        with contextlib.suppress(OSError):  # a root that takes no writes keeps a note that is tried again
            CompiledCode.noted_at(Path(note)).note_failed(
                "vLLM could not use what was made; see the engine's log"
            )
    return _forward


def _forward(model: Any, *arguments: Any, **named: Any) -> Any:
    return model.forward(*arguments, **named)


def _nothing(_vllm_config: Any) -> None:
    """Stand in for what only code of vLLM's own backend needs."""
