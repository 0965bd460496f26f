"""Installs the grouped CPU LoRA wrapper and keeps compilation on; vLLM calls `install` in each process.

It is a `vllm.general_plugins` entry point, so it also runs where Wardrobe is merely installed beside
vLLM. It replaces two class methods of vLLM's CPU platform, and only where that is known to be right: on
the CPU, and with the vLLM release that it is tested with. Otherwise it steps aside and says why.
"""

from __future__ import annotations

import logging
import os
from typing import Any

from serve.engine.cpu_lora import compilation
from serve.engine.environment import CPU_LORA_VARIABLE
from serve.engine.machine import TESTED_RELEASE, is_tested

WRAPPER = "serve.engine.cpu_lora.wrapper.GroupedPunicaWrapper"

_log = logging.getLogger("vllm.wardrobe.cpu_lora")
_said: set[str] = set()


def install() -> None:
    """Make vLLM's CPU platform use the grouped wrapper; calling it again changes nothing.

    NOTE: vLLM 0.32's own wrapper gathers whole matrices per token, and gives rows of the base model the
    adapter of the last slot (vllm#48421, vllm#49656). Remove when both are fixed.
    """
    import vllm
    from vllm.platforms import current_platform

    reason = objection(vllm.__version__, on_cpu=current_platform.is_cpu())
    if reason is not None:
        _say_once(f"vLLM's own LoRA wrapper stays, uncompiled on the CPU: {reason}")
        return
    replace(type(current_platform))
    compilation.keep(type(current_platform), _say_once)


def objection(version: str, *, on_cpu: bool) -> str | None:
    """Return why the wrapper must not be installed, or None when it may be."""
    if os.environ.get(CPU_LORA_VARIABLE, "grouped") == "stock":
        return f"{CPU_LORA_VARIABLE}=stock"
    if not on_cpu:
        return "this is not the CPU platform"
    if not is_tested(version):
        return (
            f"vLLM {version} is not {TESTED_RELEASE}.*, the release that the grouped wrapper is tested with"
        )
    return None


def replace(platform: Any) -> None:
    """Point `platform.get_punica_wrapper` at the grouped wrapper."""
    if platform.get_punica_wrapper() == WRAPPER:
        return
    platform.get_punica_wrapper = classmethod(_wrapper_name)
    _say_once(f"LoRA on the CPU: {WRAPPER} takes the place of vLLM's own")


def _wrapper_name(_platform: Any) -> str:
    return WRAPPER


def _say_once(text: str) -> None:
    if text not in _said:
        _said.add(text)
        _log.info(text)
