"""Which of the base's modules an adapter changes: all linear ones, named ones, or those of an expression.

Owns `lora.target_modules`. Pure; knows no torch. Invariants: an expression means what it means in PEFT, it
must match a module's whole name; it is evaluated here, for a bounded time, and nobody else sees it: PEFT and
the stored adapter get names.
"""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Iterator

import regex

from registry.validation.architectures import INPUT_EMBEDDING, OUTPUT_EMBEDDING
from train.model.experts import without_experts
from train.settings.adapter import ALL_LINEAR, LoraSettings

EMBEDDINGS = frozenset({INPUT_EMBEDDING, OUTPUT_EMBEDDING})
LONGEST_PATTERN = 4_096
"""Characters; the longest one of a public trainer that we know (Unsloth's) has 600."""
PATTERN_SECONDS = 2.0
"""For all modules together; a usual expression takes a millisecond for a thousand of them."""

# transformers' classes and their checkpoints nest a multimodal model's language model differently.
_NESTING = ("model.language_model", "language_model.model", "language_model", "model.text_model", "model")
_NESTED = frozenset({"language_model", "text_model"})


def targeted_modules(lora: LoraSettings, modules: Collection[str]) -> frozenset[str]:
    """Return which of the base's `modules` (whole names) the adapter changes.

    Raises: ValueError: the expression is none, or takes too long.
    """
    return _meant(lora, without_experts(modules))


def left_out(lora: LoraSettings, modules: Collection[str]) -> frozenset[str]:
    """Return the routed experts and routers of `modules` that `target_modules` names; none is trained.

    `all-linear` names none of them. Raises: ValueError: the expression is none, or takes too long.
    """
    if lora.target_modules == ALL_LINEAR:
        return frozenset()
    return _meant(lora, frozenset(modules) - without_experts(modules))


def left_out_sentence(lora: LoraSettings, modules: Collection[str]) -> str | None:
    """Return what to tell a person of the experts and routers that are named and stay as they are."""
    if not (found := left_out(lora, modules)):
        return None
    fact = f"lora.target_modules names {len(found)} modules of routed experts or routers"
    return f"{fact} (such as {min(found)}): they take no LoRA here and stay as they are"


def target_names(lora: LoraSettings, modules: Collection[str]) -> tuple[str, ...]:
    """Return the names that PEFT takes for `target_modules`, sorted: short ones where these say the same.

    Raises: ValueError: the expression is none, or takes too long.
    """
    modules = without_experts(modules)
    if lora.target_modules == ALL_LINEAR:
        return tuple(sorted({name.rpartition(".")[2] for name in modules} - EMBEDDINGS))
    if lora.target_pattern is None:
        return tuple(lora.target_modules)
    targeted = targeted_modules(lora, modules)
    short = {name.rpartition(".")[2] for name in targeted}
    meant = {name for name in modules if is_named(name, short)}
    if lora.layers is not None:
        meant = {name for name in meant if layer_of(name) in lora.layers}
    if meant == targeted:
        return tuple(sorted(short))
    return tuple(sorted({spelling for name in targeted for spelling in _spellings(name)}))


def matching(pattern: str, modules: Collection[str]) -> Iterator[str]:
    """Yield the modules whose whole name `pattern` matches, nested as in the checkpoint or in transformers.

    Raises: ValueError: it is not an expression, too long, or takes longer than `PATTERN_SECONDS`.
    """
    compiled = _compiled(pattern)
    until = time.monotonic() + PATTERN_SECONDS
    try:
        for name in modules:
            left = max(0.001, until - time.monotonic())
            if any(compiled.fullmatch(one, timeout=left) for one in _spellings(name)):
                yield name
    except TimeoutError as error:
        raise ValueError(f"takes longer than {PATTERN_SECONDS:g} s: {_shown(pattern)}") from error


def is_named(module: str, names: Collection[str]) -> bool:
    """Tell whether one of `names` is the module's name or the end of it at a dot."""
    return any(module == name or module.endswith(f".{name}") for name in names)


def layer_of(module: str) -> int | None:
    """Return the number of the layer that `module` lies in, None outside of the layers."""
    return next((int(part) for part in module.split(".") if part.isascii() and part.isdecimal()), None)


def _meant(lora: LoraSettings, modules: Collection[str]) -> frozenset[str]:
    if lora.target_modules == ALL_LINEAR:
        names = {name for name in modules if name.rpartition(".")[2] not in EMBEDDINGS}
    elif lora.target_pattern is not None:
        names = set(matching(lora.target_pattern, modules))
    else:
        names = {name for name in modules if is_named(name, lora.target_modules)}
    if lora.layers is None:
        return frozenset(names)
    return frozenset(name for name in names if layer_of(name) in lora.layers)


def _compiled(pattern: str) -> regex.Pattern[str]:
    if len(pattern) > LONGEST_PATTERN:
        raise ValueError(f"has {len(pattern)} characters; an expression may have {LONGEST_PATTERN}")
    try:
        re.compile(pattern)  # PEFT's own reader: what only the other one understands is refused
        return regex.compile(pattern)
    except (re.error, regex.error, RecursionError, OverflowError) as error:
        raise ValueError(f"is not a regular expression ({error}): {_shown(pattern)}") from error


def _spellings(name: str) -> tuple[str, ...]:
    parts = name.split(".")
    if _NESTED.isdisjoint(parts[:2]):
        return (name,)
    inner = next(place for place, part in enumerate(parts) if part not in _NESTED | {"model"})
    rest = ".".join(parts[inner:])
    return tuple(dict.fromkeys([name, *(f"{before}.{rest}" for before in _NESTING)]))


def _shown(pattern: str) -> str:
    return pattern if len(pattern) <= 80 else f"{pattern[:80]}…"
