"""What constrains an answer, in every field that takes it, held against the limits of a default server."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from msgspec import Raw

from serve.bounds.grammars import GrammarLimits, check_grammars
from serve.settings import RequestLimits

DEFAULTS = RequestLimits()
LIMITS = GrammarLimits(
    DEFAULTS.max_grammar_bytes,
    DEFAULTS.max_pattern_bytes,
    DEFAULTS.max_loops,
    DEFAULTS.max_properties,
    DEFAULTS.max_repetitions,
)
MANY_256 = {f"p{n}": {"type": "string"} for n in range(255)}
MANY = {"type": "object", "properties": {f"p{n}": {"type": "string"} for n in range(257)}}


def check(**body: Any) -> None:
    check_grammars(msgspec.json.decode(json.dumps(body), type=dict[str, Raw]), LIMITS)


def fields(constraint: str, value: Any) -> list[dict[str, Any]]:
    """Return the same constraint in every field that takes one of its kind."""
    if constraint != "json":
        return [{"structured_outputs": {constraint: value}}]
    return [
        {"structured_outputs": {"json": value}},
        {"structured_outputs": {"json": json.dumps(value)}},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": value}}},
        {"text": {"format": {"type": "json_schema", "name": "a", "schema": value}}},
        {"output_config": {"format": {"type": "json_schema", "schema": value}}},
    ]
