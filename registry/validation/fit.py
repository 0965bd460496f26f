"""Whether a LoRA fits a base: module names, dimensions, ranks. Pure; warnings are returned, misfits raised.

Owns the comparison with the base's shapes. vLLM itself compares only the last part of a module's name and
serves the base's answers for the rest (vllm#34186), so every module is looked up by its whole name here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from registry.errors import InvalidAdapter
from registry.records import BaseModelInfo
from registry.validation.architectures import INPUT_EMBEDDING, OUTPUT_EMBEDDING
from registry.validation.intake.base_names import same_base
from registry.validation.intake.modules import TOWERS, Modules, ends
from registry.validation.intake.prefixes import unwrapped
from registry.validation.lora import Lora, LoraPair, module_name
from registry.validation.patterns import PatternTable, depends_on_order
from registry.validation.peft import LoraConfig


def check_base_named(config: LoraConfig, base: BaseModelInfo, subject: str) -> list[str]:
    """Compare the base that the config names with this one; only a fingerprint can refuse.

    Raises: InvalidAdapter: reason `base_mismatch`.
    """
    named = config.base or ""
    if named.startswith("sha256:"):
        if named != base.fingerprint:
            fact = (
                f"was made for the base {named[:19]}…; this root's is {base.fingerprint[:19]}… ({base.name})"
            )
            raise InvalidAdapter(
                subject, fact, "register it in a root of its own base", reason="base_mismatch"
            )
        return []
    if not named or same_base(named, base.name, base.path):
        return []
    return [f"its config names the base {named!r}; this root serves {base.name} (the dimensions agree)"]


def check_fit(lora: Lora, config: LoraConfig, base: BaseModelInfo, subject: str) -> list[str]:
    """Hold every pair against its config and the base; return the warnings.

    The config's ranks are within the limits already, so a tensor that agrees with it is, too.

    Raises: InvalidAdapter: reason `bad_config`, `rank`, `modules` or `base_mismatch`.
    """
    if not base.modules:
        _check_ranks(lora, config, subject)
        return ["the base's shapes are unknown (packed weights), so the dimensions were not checked"]
    names = Modules(base.modules)
    passed_over = _check_targets(config, lora, base, subject)
    _check_known(lora, names, base, subject)
    _check_ranks(lora, config, subject)
    for pair in lora.pairs:
        _check_dimensions(pair, names, config, base, subject)
    _check_copies(lora, names, subject)
    return [*passed_over, *_warnings(lora, config, names)]


def _check_ranks(lora: Lora, config: LoraConfig, subject: str) -> None:
    _check_order(lora, config, subject)
    ranks = PatternTable(config.rank_pattern)
    for pair in lora.pairs:
        _check_rank(pair, ranks.find(pair.pattern_name, config.rank), subject)
        _check_layout(pair, subject)


def _check_order(lora: Lora, config: LoraConfig, subject: str) -> None:
    modules = [pair.pattern_name for pair in lora.pairs]
    for field, patterns in (("rank_pattern", config.rank_pattern), ("alpha_pattern", config.alpha_pattern)):
        module = depends_on_order(patterns, modules)
        if module is not None:
            fact = f"{field} gives {module} another value when its keys are sorted, as PEFT saves them"
            raise InvalidAdapter(subject, fact, "let only one pattern match a module", reason="bad_config")


def _check_rank(pair: LoraPair, wanted: int, subject: str) -> None:
    if pair.is_fused_experts:
        if pair.rank % wanted:
            fact = f"{pair.module} has {pair.rank} rows in A, no multiple of the config's rank {wanted}"
            raise InvalidAdapter(subject, fact, "save config and weights together", reason="rank")
        return
    if pair.rank != wanted:
        fact = f"{pair.module} has rank {pair.rank}; the config says {wanted}"
        raise InvalidAdapter(subject, fact, "save config and weights together", reason="rank")


def _check_layout(pair: LoraPair, subject: str) -> None:
    is_input = pair.module.rpartition(".")[2] == INPUT_EMBEDDING
    if pair.embedding != is_input:
        found, wanted = ("lora_embedding_", "lora_") if pair.embedding else ("lora_", "lora_embedding_")
        fact = f"{pair.module} has {found}A/B; vLLM reads {wanted}A/B there"
        raise InvalidAdapter(subject, fact, "save the adapter again with PEFT", reason="modules")


def _check_targets(config: LoraConfig, lora: Lora, base: BaseModelInfo, subject: str) -> list[str]:
    """Return a warning for targets that the base does not have; refuse a list of nothing else.

    Scripts for several architectures keep one list. PEFT passes over what it does not find, unless it finds
    nothing at all; vLLM looks at the tensors alone, each of which is checked.
    """
    names = {*base.modules, *(pair.module for pair in lora.pairs)}
    known = names | {end for name in names for end in ends(name)}
    targets = config.target_modules or ()
    unknown = [target for target in targets if unwrapped(target) not in known]
    if not unknown:
        return []
    fact = f"target_modules names {_some(unknown)}, which the base {base.name} does not have"
    if not {INPUT_EMBEDDING, OUTPUT_EMBEDDING}.isdisjoint(unknown):
        fact += " or vLLM cannot adapt on it"
    if len(unknown) < len(targets):
        return [f"{fact}: passed over, as PEFT and vLLM do"]
    remedy = f"train on this base, or correct the names; it has {_some(_leaves(base.modules), 12)}"
    raise InvalidAdapter(subject, fact, remedy, reason="modules", param="target_modules")


def _check_known(lora: Lora, names: Modules, base: BaseModelInfo, subject: str) -> None:
    unknown = [pair.module for pair in lora.pairs if not _is_known(pair, names)]
    if not unknown:
        return
    fact = f"{len(unknown)} of {len(lora.pairs)} modules are not in the base {base.name}: {_some(unknown)}"
    like = [name for name in base.modules if name.endswith(f".{unknown[0]}")]
    prefix = names.prefix_of(unknown[0])
    remedy = "train on this base, with target_modules that it has"
    if like:
        remedy = f"save with PEFT from the whole model, so that {unknown[0]} is called {like[0]}"
    elif unknown[0].rpartition(".")[2] in {INPUT_EMBEDDING, OUTPUT_EMBEDDING}:
        remedy = "train without it: vLLM adapts embed_tokens and lm_head on some architectures only"
    elif prefix is not None:
        remedy = f"save with PEFT from the model itself, so that `{prefix}.` does not stand before its names"
    raise InvalidAdapter(subject, fact, remedy, reason="modules")


def _is_known(pair: LoraPair, names: Modules) -> bool:
    return names.experts_known(pair.module) if pair.is_fused_experts else names.find(pair.module) is not None


def _check_dimensions(
    pair: LoraPair, names: Modules, config: LoraConfig, base: BaseModelInfo, subject: str
) -> None:
    if pair.is_fused_experts:
        return
    found, wanted = pair.dimensions, names.dimensions(pair.module)
    assert wanted is not None, "modules are looked up before their dimensions"
    # Conv1D (GPT-2) keeps its weight transposed; PEFT says so in the config.
    if found == wanted or (config.fan_in_fan_out and found == wanted[::-1]):
        return
    fact = (
        f"{pair.module} maps {found[1]} features to {found[0]}; "
        f"the base {base.name}'s maps {wanted[1]} to {wanted[0]}"
    )
    raise InvalidAdapter(subject, fact, "train on this base model", reason="base_mismatch")


def _check_copies(lora: Lora, names: Modules, subject: str) -> None:
    for copy in lora.copies:
        wanted = names.dimensions(module_name(copy.name, ".base_layer.weight"))
        if wanted is not None and copy.shape != wanted:
            fact = f"{copy.name} is {list(copy.shape)}; the base's is {list(wanted)} (a resized vocabulary?)"
            raise InvalidAdapter(subject, fact, "train without new tokens", reason="base_mismatch")


def _warnings(lora: Lora, config: LoraConfig, names: Modules) -> Iterator[str]:
    missing = [
        target
        for target in map(unwrapped, config.target_modules or ())
        if not _is_targeted(target, lora) and names.has_target(target)
    ]
    if missing:
        yield f"target_modules names {_some(missing)}, but the file holds no tensor for it"
    if any(pair.is_fused_experts for pair in lora.pairs):
        yield "the dimensions of fused experts were not checked"
    renamed = [pair.module for pair in lora.pairs if names.find(pair.module) not in {pair.module, None}]
    if renamed:
        yield (
            f"{len(renamed)} modules are named otherwise in the base's weights ({renamed[0]}); "
            "the proof at first load tells whether the server applies them"
        )
    towers = [pair.module for pair in lora.pairs if not TOWERS.isdisjoint(pair.module.split("."))]
    if towers:
        yield (
            f"{len(towers)} modules belong to a tower or projector ({towers[0]}); "
            "vLLM ignores them without enable_tower_connector_lora"
        )
    if lora.copies:
        yield f"the file carries {len(lora.copies)} whole embeddings, which vLLM skips"


def _is_targeted(target: str, lora: Lora) -> bool:
    return any(pair.module == target or pair.module.endswith(f".{target}") for pair in lora.pairs)


def _leaves(modules: dict[str, tuple[int, int]]) -> list[str]:
    return sorted({name.rpartition(".")[2] for name in modules})


def _some(names: Sequence[str], count: int = 3) -> str:
    shown = ", ".join(name[:100] if name.isprintable() else repr(name[:100]) for name in names[:count])
    return shown if len(names) <= count else f"{shown} and {len(names) - count} more"
