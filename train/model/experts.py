"""Mixture-of-experts bases: which modules are experts and routers, and what of them can be trained. Pure.

Experts take no LoRA here: transformers 5 holds those of a layer in one tensor, and vLLM 0.32's CPU kernels
serve none (its LoRA on experts asserts a modular kernel, which only its GPU backends are). Routers take none:
they are no linear layers in training, and a moved router sends every other adapter's tokens elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.errors import UsageError

if TYPE_CHECKING:
    from train.config import TrainConfig

_COUNTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
_ROUTERS = frozenset({"gate", "router", "shared_expert_gate"})
COEFFICIENT = "router_aux_loss_coef"


def is_expert(module: str) -> bool:
    """Tell a module of one routed expert (not of a shared one)."""
    return ".experts." in f".{module}."


def is_router(module: str, modules: Collection[str]) -> bool:
    """Tell a module that chooses experts, or weighs a shared one; `modules` are all of the base's."""
    parts = module.split(".")
    if not _ROUTERS & set(parts):
        return False
    if "gate" not in parts:
        return True
    # A gate beside experts; in a model whose experts are not modules, one right under the feed-forward layer.
    layer = ".".join(parts[: parts.index("gate")])
    return any(name.startswith(f"{layer}.experts.") for name in modules) or parts[-2:-1] in (
        ["mlp"],
        ["feed_forward"],
        ["block_sparse_moe"],
    )


def without_experts(modules: Collection[str]) -> frozenset[str]:
    """Return the modules that can carry a LoRA in training: no routed experts, no routers."""
    return frozenset(name for name in modules if not is_expert(name) and not is_router(name, modules))


def experts_of(base: Path) -> int:
    """Return how many routed experts a layer of the model in `base` has; 0 for a dense one."""
    fields = _config(base)
    inner = fields.get("text_config")
    for found in (fields, inner if isinstance(inner, dict) else {}):
        for key in _COUNTS:
            if isinstance(count := found.get(key), int) and count > 1:
                return count
    return 0


def check_experts(config: TrainConfig, base: Path, modules: Collection[str]) -> None:
    """Refuse what cannot be trained on this base: LoRA on experts and routers, a router's loss without one.

    Raises: UsageError.
    """
    coefficient = config.training.router_aux_loss_coef
    experts = experts_of(base)
    if coefficient is not None and not (experts and _weighs_routers(base)):
        fact = f"training.{COEFFICIENT} is {coefficient:g}, and the base "
        fact += f"has {experts} experts but no such loss" if experts else "is dense: it has no router"
        raise UsageError(config.name, fact, "leave it out", param=f"training.{COEFFICIENT}")
    targets = config.lora.target_modules
    if not experts or isinstance(targets, str):
        return
    for target in targets:
        named = [name for name in modules if name == target or name.endswith(f".{target}")]
        if target in {"experts", "gate_up_proj"} and not named:
            _refuse(config.name, target, "is the experts' own")
        if named and all(is_expert(name) for name in named):
            _refuse(config.name, target, "only the routed experts have")
        if any(is_router(name, modules) for name in named):
            _refuse(config.name, target, "is a router's")


def _refuse(subject: str, target: str, what: str) -> None:
    fact = f"lora.target_modules names {target}, which {what}: they take no LoRA here (experts are one "
    fact += "tensor per layer in training, and vLLM 0.32 serves LoRA on them with GPU kernels only)"
    remedy = "name attention modules, or all-linear, which leaves experts and routers as they are"
    raise UsageError(subject, fact, remedy, param="lora.target_modules")


def _weighs_routers(base: Path) -> bool:
    from transformers import AutoConfig

    found: Any = AutoConfig.from_pretrained(base, local_files_only=True).get_text_config()
    return hasattr(found, COEFFICIENT)


def _config(base: Path) -> Mapping[str, Any]:
    path = base / "config.json"
    try:
        found: Any = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UsageError(str(path), f"cannot be read ({error})", "mend the base's folder") from error
    return found if isinstance(found, dict) else {}
