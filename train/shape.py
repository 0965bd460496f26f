"""Whether the adapter that a config describes fits the base and the servers that will serve it.

Owns the limits that can be known before the first step: module names, layers, patterns and ranks. Pure;
knows no torch. Invariant: what passes here is not refused for its shape when it is registered.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from registry.architectures import INPUT_EMBEDDING, OUTPUT_EMBEDDING
from registry.errors import UsageError
from registry.patterns import PatternTable, depends_on_order
from train.config import ALL_LINEAR, TrainConfig
from train.experts import check_experts, without_experts

if TYPE_CHECKING:
    from registry.records import BaseModel
    from train.settings.adapter import LoraSettings

_EMBEDDINGS = frozenset({INPUT_EMBEDDING, OUTPUT_EMBEDDING})
VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""The values that vLLM 0.32 takes for `max_lora_rank`."""


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """What a running server says that it can serve: its base's fingerprint and the highest rank."""

    url: str
    fingerprint: str
    max_lora_rank: int


def check_shape(config: TrainConfig, base: BaseModel, max_rank: int) -> None:
    """Refuse an adapter that this root could not take, or that its base has no place for.

    Raises: UsageError: naming the key, what it says, and what there is.
    """
    lora, subject = config.lora, config.name
    _check_rank(lora, max_rank, f"this root's max_lora_rank {max_rank}", subject)
    check_experts(config, base.path, base.modules)
    if not base.modules:
        return
    _check_targets(lora, base, subject)
    _check_layers(lora, base, subject)
    modules = sorted(targeted_modules(lora, base.modules))
    _check_pattern("rank_pattern", lora.rank_pattern, modules, subject)
    _check_pattern("alpha_pattern", lora.alpha_pattern, modules, subject)


def check_server(config: TrainConfig, base: BaseModel, limits: ServerLimits) -> None:
    """Refuse an adapter that the running server could not serve.

    Raises: UsageError: for its rank, or because the server serves another base.
    """
    if limits.fingerprint != base.fingerprint:
        fact = f"serves another base ({limits.fingerprint[:19]}…) than the root's ({base.fingerprint[:19]}…)"
        raise UsageError(limits.url, fact, "train on a root of the server's base", param="url")
    _check_rank(
        config.lora, limits.max_lora_rank, f"the server's max_lora_rank {limits.max_lora_rank}", config.name
    )


def targeted_modules(lora: LoraSettings, modules: Collection[str]) -> frozenset[str]:
    """Return which of the base's `modules` (whole names) the adapter changes."""
    names = (
        {name for name in without_experts(modules) if name.rpartition(".")[2] not in _EMBEDDINGS}
        if lora.target_modules == ALL_LINEAR
        else {name for name in without_experts(modules) if _is_named(name, lora.target_modules)}
    )
    if lora.layers is None:
        return frozenset(names)
    return frozenset(name for name in names if layer_of(name) in lora.layers)


def target_names(lora: LoraSettings, modules: Collection[str]) -> tuple[str, ...]:
    """Return the short names that PEFT takes for `target_modules`, sorted."""
    if lora.target_modules != ALL_LINEAR:
        return tuple(lora.target_modules)
    return tuple(sorted({name.rpartition(".")[2] for name in without_experts(modules)} - _EMBEDDINGS))


def layer_of(module: str) -> int | None:
    """Return the number of the layer that `module` lies in, None outside of the layers."""
    return next((int(part) for part in module.split(".") if part.isascii() and part.isdecimal()), None)


def _is_named(module: str, names: Collection[str]) -> bool:
    return any(module == name or module.endswith(f".{name}") for name in names)


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


def _check_targets(lora: LoraSettings, base: BaseModel, subject: str) -> None:
    if lora.target_modules == ALL_LINEAR:
        return
    missing = [
        name for name in lora.target_modules if not any(_is_named(module, [name]) for module in base.modules)
    ]
    if missing:
        known = sorted({name.rpartition(".")[2] for name in base.modules})
        fact = f"lora.target_modules names {', '.join(missing)}, which the base does not have"
        raise UsageError(subject, fact, f"it has {', '.join(known)}", param="lora.target_modules")


def _check_layers(lora: LoraSettings, base: BaseModel, subject: str) -> None:
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
