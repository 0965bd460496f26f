"""Whether the adapter that a config describes fits the base and the servers that will serve it.

Owns the limits that can be known before the first step: module names, layers, patterns and ranks. Pure;
knows no torch. Invariant: what passes here is not refused for its shape when it is registered.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from registry.errors import UsageError
from registry.validation.architectures import OUTPUT_EMBEDDING
from registry.validation.patterns import PatternTable, depends_on_order
from train.config import ALL_LINEAR, TrainConfig
from train.model.experts import check_experts
from train.model.targets import EMBEDDINGS, is_named, layer_of, left_out, targeted_modules

if TYPE_CHECKING:
    from registry.records import BaseModelInfo
    from train.settings.adapter import LoraSettings

VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""The values that vLLM 0.32 takes for `max_lora_rank`."""
_TARGETS = "lora.target_modules"


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """What a running server says that it can serve: its base's fingerprint and the highest rank."""

    url: str
    fingerprint: str
    max_lora_rank: int


def check_shape(config: TrainConfig, base: BaseModelInfo, max_rank: int) -> None:
    """Refuse an adapter that this root could not take, or that its base has no place for.

    Raises: UsageError: naming the key, what it says, and what there is.
    """
    lora, subject = config.lora, config.name
    _check_rank(lora, max_rank, f"this root's max_lora_rank {max_rank}", subject)
    check_experts(config, base.path, base.modules)
    if not base.modules:
        _check_no_pattern(lora, base, subject)
        return
    _check_targets(lora, base, subject)
    _check_layers(lora, base, subject)
    modules = sorted(targeted_modules(lora, base.modules))
    if not modules:
        fact = (
            f"lora.layers {_list(lora.layers)} hold none of lora.target_modules {_list(lora.target_modules)}"
        )
        raise UsageError(subject, fact, "leave lora.layers out, or name other modules", param="lora.layers")
    _check_embeddings(config, modules)
    _check_pattern("rank_pattern", lora.rank_pattern, modules, subject)
    _check_pattern("alpha_pattern", lora.alpha_pattern, modules, subject)


def check_server(config: TrainConfig, base: BaseModelInfo, limits: ServerLimits) -> None:
    """Refuse an adapter that the running server could not serve.

    Raises: UsageError: for its rank, or because the server serves another base.
    """
    if limits.fingerprint != base.fingerprint:
        fact = f"serves another base ({limits.fingerprint[:19]}…) than the root's ({base.fingerprint[:19]}…)"
        raise UsageError(limits.url, fact, "train on a root of the server's base", param="url")
    _check_rank(
        config.lora, limits.max_lora_rank, f"the server's max_lora_rank {limits.max_lora_rank}", config.name
    )


def _check_rank(lora: LoraSettings, limit: int, whose: str, subject: str) -> None:
    if lora.highest_rank <= limit:
        return
    key = "lora.rank"
    if lora.kind != "lora" and lora.convert_rank is not None:
        key = "lora.convert_rank"
    elif lora.highest_rank != lora.rank:
        key = "lora.rank_pattern"
    higher = next((rank for rank in VLLM_RANKS if rank >= lora.highest_rank), VLLM_RANKS[-1])
    fact = f"{key} {lora.highest_rank} exceeds {whose}"
    remedy = f"set {key} to {limit} or less, or max_lora_rank to {higher} in wardrobe.toml and start again"
    raise UsageError(subject, fact, remedy, param=key)


def _check_no_pattern(lora: LoraSettings, base: BaseModelInfo, subject: str) -> None:
    if lora.target_pattern is not None:
        fact = f"lora.target_modules is an expression, and the module names of {base.name} are unknown"
        raise UsageError(subject, f"{fact} (packed weights)", "name the modules in a list", param=_TARGETS)


def _check_targets(lora: LoraSettings, base: BaseModelInfo, subject: str) -> None:
    if lora.target_modules == ALL_LINEAR:
        return
    known = sorted({name.rpartition(".")[2] for name in base.modules})
    if lora.target_pattern is not None:
        _check_pattern_matches(lora, base, subject, known)
        return
    missing = [
        name for name in lora.target_modules if not any(is_named(module, [name]) for module in base.modules)
    ]
    if not missing:
        return
    fact = f"lora.target_modules names {', '.join(missing)}, which the base does not have"
    if not EMBEDDINGS.isdisjoint(missing):
        fact += " or vLLM cannot adapt on it"
    raise UsageError(subject, fact, f"it has {', '.join(known)}", param=_TARGETS)


def _check_pattern_matches(lora: LoraSettings, base: BaseModelInfo, subject: str, known: list[str]) -> None:
    whole = lora.model_copy(update={"layers": None})
    try:
        if targeted_modules(whole, base.modules):
            return
        experts = left_out(whole, base.modules)
    except ValueError as error:
        raise UsageError(
            subject, f"lora.target_modules {error}", "name modules in a list", param=_TARGETS
        ) from error
    if experts:
        fact = f"lora.target_modules {lora.target_pattern} matches routed experts and routers alone"
        raise UsageError(subject, f"{fact}, which take no LoRA here", "name other modules", param=_TARGETS)
    fact = f"lora.target_modules {lora.target_pattern} matches no module of the base as a whole name"
    example = min(base.modules, key=lambda name: (layer_of(name) is None, name))
    named = [name for name in re.split(r"[\s,|]+", lora.target_pattern or "") if name]
    is_list = set(named) <= set(known)
    remedy = f"write it as a list: [{', '.join(named)}]" if is_list else f"whole names are like {example}"
    raise UsageError(subject, fact, remedy, param=_TARGETS)


def _check_embeddings(config: TrainConfig, modules: list[str]) -> None:
    adapted = sorted(EMBEDDINGS & {name.rpartition(".")[2] for name in modules})
    lora = config.lora
    if adapted and lora.kind != "lora":
        # Rows of a vocabulary that nobody uses are zeros, by whose length DoRA divides; PiSSA knows no
        # embedding; and the weights of a tied pair cannot be trained apart.
        fact = f"lora.kind {lora.kind} takes linear modules only, and {_TARGETS} has {', '.join(adapted)}"
        raise UsageError(config.name, fact, "use kind: lora, or leave them out", param=_TARGETS)
    if OUTPUT_EMBEDDING in adapted and config.method.own_head:
        fact = f"{_TARGETS} has {OUTPUT_EMBEDDING}, in whose place a reward model has a head of its own"
        raise UsageError(config.name, fact, "leave it out", param=_TARGETS)


def _check_layers(lora: LoraSettings, base: BaseModelInfo, subject: str) -> None:
    if lora.layers is None:
        return
    known = {layer for name in base.modules if (layer := layer_of(name)) is not None}
    if missing := sorted(set(lora.layers) - known):
        fact = f"lora.layers names {', '.join(map(str, missing))}, which the base does not have"
        raise UsageError(subject, fact, f"it has the layers 0 to {max(known)}", param="lora.layers")


def _check_pattern(field: str, pattern: Mapping[str, float], modules: list[str], subject: str) -> None:
    try:
        PatternTable(pattern)
    except ValueError as error:
        raise UsageError(
            subject, f"lora.{field} {error}", "name modules in plain words", param=field
        ) from error
    for name in pattern:
        if not any(PatternTable({name: 1}).find(module, 0) for module in modules):
            fact = f"lora.{field} names {name}, which matches no module that is trained"
            raise UsageError(subject, fact, f"use a name like {modules[0]} or its end", param=f"lora.{field}")
    if (module := depends_on_order(pattern, modules)) is not None:
        fact = f"lora.{field} gives {module} another value when its keys are sorted, as they are stored"
        raise UsageError(subject, fact, "let only one name match a module", param=f"lora.{field}")


def _list(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
