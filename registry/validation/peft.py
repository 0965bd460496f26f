"""PEFT's `adapter_config.json`: parsed, refused where vLLM cannot serve what it says, made canonical.

Owns which PEFT features are servable (vLLM 0.32: `vllm/lora/peft_helper.py`, and features that it does not
read at all); knows no tensors. Invariant: equal configs have equal canonical bytes, whatever order PEFT
wrote its sets in and wherever the base lay.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from registry.errors import InvalidAdapter
from registry.records import Limits
from registry.validation.canonical import decode_document, parse_document, readable_json
from registry.validation.intake.disguises import HEAD_BYTES, recognised
from registry.validation.patterns import PatternTable, Value

if TYPE_CHECKING:
    from pydantic import JsonValue

CONFIG_NAME = "adapter_config.json"
# PEFT keeps these as sets (or reads them as such) and writes them in random order.
_SETS = ("exclude_modules", "layers_pattern", "layers_to_transform", "modules_to_save", "target_modules")
_MERGE = "make it a plain LoRA (`wardrobe train merge DIR OUT --as lora`), or train again without it"
# vLLM accepts lora_ga, too; but PEFT takes its first product out of the base, as with PiSSA.
_PLAIN_INITS = frozenset({"gaussian", "eva", "orthogonal", "mica"})

# field -> (what it is called, what to do); refused when its value is truthy.
_REFUSED = {
    "use_dora": ("DoRA (use_dora)", _MERGE),
    "lora_bias": ("LoRA biases (lora_bias)", "train again with lora_bias=False"),
    "alora_invocation_tokens": ("activated LoRA (alora_invocation_tokens)", "train an ordinary LoRA"),
    "layer_replication": ("layer_replication", "serve the replicated model as a base of its own"),
    "use_bdlora": ("block-diagonal LoRA (use_bdlora)", "train an ordinary LoRA"),
    "use_qalora": ("QA-LoRA (use_qalora)", "train an ordinary LoRA"),
    "arrow_config": ("Arrow routing (arrow_config)", "register each of its adapters by itself"),
    "kasa_config": ("KaSA (kasa_config)", _MERGE),
    "monteclora_config": ("MonteCLoRA (monteclora_config)", _MERGE),
    "trainable_token_indices": (
        "trained tokens (trainable_token_indices)",
        "train with LoRA on embed_tokens instead, or without new tokens",
    ),
    "modules_to_save": (
        "whole modules saved beside the LoRA (modules_to_save)",
        "train with LoRA on those modules (target_modules) instead",
    ),
}


@dataclass(frozen=True, slots=True)
class LoraConfig:
    """What of an adapter's config the checks need; `fields` is all of it, as it was read.

    `target_modules` is None where the config holds an expression: the tensors then say what is targeted.
    """

    rank: int
    alpha: float
    target_modules: tuple[str, ...] | None
    rank_pattern: Mapping[str, int]
    alpha_pattern: Mapping[str, float]
    base: str | None
    fan_in_fan_out: bool
    fields: Mapping[str, JsonValue]

    @property
    def highest_rank(self) -> int:
        """The rank that vLLM compares with its limit: the largest named anywhere, used or not."""
        return max(self.rank, *self.rank_pattern.values()) if self.rank_pattern else self.rank


def parse_config(data: bytes, subject: str) -> LoraConfig:
    """Parse an `adapter_config.json`; refuses what is not a LoRA config, not what vLLM cannot serve.

    Raises: InvalidAdapter: reason `bad_config`.
    """
    try:
        fields = parse_document(decode_document(data))
    except ValueError as error:
        raise _no_json(data, error, subject) from error
    if not isinstance(fields, dict):
        raise _bad(subject, f"{CONFIG_NAME} is not a JSON object", "save the adapter again with PEFT")
    if "lora_parameters" in fields and "peft_type" not in fields:
        fact = f"{CONFIG_NAME} is MLX's, not PEFT's"
        raise _bad(subject, fact, "convert the adapter to PEFT's format, or train with PEFT")
    if fields.get("peft_type") != "LORA":
        fact = f"peft_type is {fields.get('peft_type')!r}; only 'LORA' can be served"
        raise _bad(subject, fact, "train a LoRA adapter (PEFT's LoraConfig)")
    fields = _with_whole_ranks(fields)
    read = _Reader(fields, subject)
    return LoraConfig(
        rank=read.integer("r"),
        alpha=read.number("lora_alpha"),
        target_modules=read.targets(),
        rank_pattern=read.pattern("rank_pattern", read.integer_value),
        alpha_pattern=read.pattern("alpha_pattern", read.number_value),
        base=read.text("base_model_name_or_path"),
        fan_in_fan_out=fields.get("fan_in_fan_out") is True,
        fields=fields,
    )


def check_servable(config: LoraConfig, limits: Limits, subject: str) -> None:
    """Refuse what vLLM would refuse, or accept and serve wrongly.

    Raises: InvalidAdapter: reason `bad_config`, `modules` or `rank`.
    """
    for field, (what, remedy) in _REFUSED.items():
        if config.fields.get(field):
            reason = "modules" if field == "modules_to_save" else "bad_config"
            fact = f"uses {what}, which vLLM cannot serve{_shown(config.fields[field])}"
            raise InvalidAdapter(subject, fact, remedy, reason=reason, param=field)
    bias = config.fields.get("bias", "none")
    if bias != "none":
        raise _bad(subject, f"bias is {bias!r}; vLLM serves only 'none'", "train again with bias='none'")
    init = config.fields.get("init_lora_weights", True)
    if isinstance(init, str) and init.lower() not in _PLAIN_INITS:
        fact = f"init_lora_weights is {init!r}, which changes the base's own weights"
        raise _bad(subject, fact, _MERGE)
    if config.highest_rank > limits.max_lora_rank:
        where = "rank" if config.highest_rank == config.rank else "a rank in rank_pattern,"
        fact = f"{where} {config.highest_rank} exceeds this server's max_lora_rank {limits.max_lora_rank}"
        raised = "raise max_lora_rank under [limits] in the root's wardrobe.toml and restart the servers"
        remedy = f"train again with r <= {limits.max_lora_rank}, or {raised}"
        raise InvalidAdapter(subject, fact, remedy, reason="rank", param="r")


def canonical_config(config: LoraConfig, base_fingerprint: str) -> bytes:
    """Return the bytes that are stored and hashed: keys and sets sorted, the base named by fingerprint."""
    fields = dict(config.fields)
    for name in _SETS:
        value = fields.get(name)
        if isinstance(value, list):
            fields[name] = sorted({str(item): item for item in value}.values(), key=_set_order)
    fields["base_model_name_or_path"] = base_fingerprint
    return readable_json(fields)


def _with_whole_ranks(fields: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """Return the fields with ranks such as 8.0, which other tools' JSON holds, as whole numbers.

    vLLM and PEFT would both fail on them; no other number is touched, as the bytes are part of the digest.
    """
    pattern = fields.get("rank_pattern")
    if isinstance(pattern, dict):
        fields = {**fields, "rank_pattern": {key: _whole(rank) for key, rank in pattern.items()}}
    return {**fields, "r": _whole(fields["r"])} if "r" in fields else fields


def _whole(value: JsonValue) -> JsonValue:
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**31 else value


def _no_json(data: bytes, error: ValueError, subject: str) -> InvalidAdapter:
    told = recognised(data[:HEAD_BYTES])
    if told is not None:
        return _bad(subject, f"{CONFIG_NAME} {told.fact}", told.remedy)
    remedy = "save the adapter again with PEFT's save_pretrained"
    return _bad(subject, f"{CONFIG_NAME} is not JSON that can be trusted: {error}", remedy)


def with_base(config: bytes, named: str) -> bytes:
    """Return a stored config with the base called `named`, for tools that look it up by this field."""
    fields = parse_document(config)
    assert isinstance(fields, dict), "what is stored was an object when it was checked"
    return readable_json({**fields, "base_model_name_or_path": named})


class _Reader:
    """Reads typed fields of one config, naming the field in each refusal."""

    def __init__(self, fields: Mapping[str, JsonValue], subject: str) -> None:
        self._fields = fields
        self._subject = subject

    def integer(self, name: str) -> int:
        return self.integer_value(name, self._fields.get(name))

    def number(self, name: str) -> float:
        return self.number_value(name, self._fields.get(name))

    def integer_value(self, name: str, value: JsonValue) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise self._wrong(name, value, "a whole number of at least 1")
        return value

    def number_value(self, name: str, value: JsonValue) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not _is_finite(value):
            raise self._wrong(name, value, "a finite number")
        return value

    def text(self, name: str) -> str | None:
        value = self._fields.get(name)
        if value is not None and not isinstance(value, str):
            raise self._wrong(name, value, "text or null")
        return value

    def targets(self) -> tuple[str, ...] | None:
        value = self._fields.get("target_modules")
        if isinstance(value, str) and value:
            return None
        if value is None and self._fields.get("target_parameters"):
            return ()
        if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
            raise self._wrong("target_modules", value, "a list of module names, or one expression")
        return tuple(sorted({str(item) for item in value}))

    def pattern(self, name: str, read: Callable[[str, JsonValue], Value]) -> Mapping[str, Value]:
        value = self._fields.get(name) or {}
        if not isinstance(value, dict):
            raise self._wrong(name, value, "an object")
        table = {key: read(f"{name}.{key[:80]}", item) for key, item in value.items()}
        try:
            PatternTable(table)
        except ValueError as error:
            raise _bad(self._subject, f"{name} {error}", "name the modules in plain words") from error
        return table

    def _wrong(self, name: str, value: JsonValue, wanted: str) -> InvalidAdapter:
        found = "missing" if value is None else repr(value)[:80]
        return _bad(self._subject, f"{name} is {found}; it must be {wanted}", f"correct {CONFIG_NAME}")


def _is_finite(value: float) -> bool:
    # An integer beyond a double's range is not a scale that vLLM could use.
    return abs(value) < 2.0**63 and math.isfinite(value)


def _set_order(item: JsonValue) -> tuple[str, int, str]:
    return (type(item).__name__, item if isinstance(item, int) else 0, str(item))


def _shown(value: JsonValue) -> str:
    return f" ({', '.join(str(item) for item in value)[:120]})" if isinstance(value, list) else ""


def _bad(subject: str, fact: str, remedy: str) -> InvalidAdapter:
    return InvalidAdapter(subject, fact, remedy, reason="bad_config")
