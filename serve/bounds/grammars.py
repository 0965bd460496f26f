"""What constrains an answer: grammars, regular expressions, schemas, choices (pure).

The engine turns them into automata before it answers, and asks those at every step of everybody's
batch, so one that is too large or too tangled is everybody's. What no answer can satisfy ends in an error
of the engine's; it is refused here where that can be told at a glance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from msgspec import Raw

from serve.bounds import patterns, schemas
from serve.bounds.structure import check_structure
from serve.errors import BadBody, TooComplex

MAX_NESTING = 64
"""Of a schema that came as a string; as an object it is nested in the body, which has a limit."""

PATTERNS_TOGETHER = 4
"""All patterns of a schema may have so many times the loops of one: they stand apart, and add up."""

CONSTRAINTS = frozenset({"structured_outputs", "response_format", "text", "output_config", "tools"})
"""The fields of a request that constrain its answer; `tools` where one of them is forced."""


@dataclass(frozen=True, slots=True)
class GrammarLimits:
    """`bytes`: of all that constrains one answer; `pattern_bytes`: of one pattern or grammar."""

    bytes: int
    pattern_bytes: int
    loops: int
    properties: int


def check_grammars(fields: Mapping[str, Raw], limits: GrammarLimits) -> None:
    """Pass when what constrains the answer is within the limits, and can be satisfied.

    Raises: TooComplex, BadBody.
    """
    for name in CONSTRAINTS & fields.keys() - {"tools"}:
        raw = bytes(fields[name])
        _check(name, len(raw), limits.bytes, "bytes", "max_grammar_bytes")
        _check_constraint(name, msgspec.json.decode(raw), limits)
    if "tools" in fields:
        _check_schema("tools", msgspec.json.decode(fields["tools"]), limits)


def _check_constraint(name: str, value: Any, limits: GrammarLimits) -> None:
    if not isinstance(value, dict):
        return  # the engine refuses it, in its own words
    schema = value.get("json")
    if isinstance(schema, str):
        value = {**value, "json": _parsed(name, schema)}
    tag = value.get("structural_tag")
    if isinstance(tag, str):
        value = {**value, "structural_tag": _parsed(name, tag)}
    _check_schema(name, value, limits)
    if schemas.is_endless(_schema_of(value)):
        raise _endless(name, "the schema")


def _schema_of(value: dict[str, Any]) -> Any:
    """Return the schema of a constraint, wherever its field keeps it, or an empty one."""
    if "json" in value:
        return value["json"]
    inner = value.get("json_schema", value.get("format"))
    return inner.get("schema", {}) if isinstance(inner, dict) else {}


def _check_schema(name: str, value: Any, limits: GrammarLimits) -> None:
    """Pass when each pattern in `value`, and all of them together, have few enough loops."""
    loops = 0
    for one in schemas.schemas_in(value):
        found = schemas.count_properties(one)
        _check(name, found, limits.properties, "properties in one object", "max_properties")
        for pattern, own in _patterns(one):
            _check(name, len(pattern), limits.pattern_bytes, "characters in a pattern", "max_pattern_bytes")
            _check(name, own(pattern), limits.loops, "repetitions in a pattern", "max_loops")
            loops += own(pattern)
        if isinstance(one.get("grammar"), str) and patterns.is_endless(one["grammar"]):
            raise _endless(name, "the grammar's root")
    most = PATTERNS_TOGETHER * limits.loops
    _check(name, loops, most, "repetitions in all patterns", "max_loops")


def _patterns(one: dict[str, Any]) -> Iterator[tuple[str, Callable[[str], int]]]:
    """Yield the patterns of one object, each with what counts its loops."""
    for pattern in (one.get("regex"), *schemas.patterns_of(one)):
        if isinstance(pattern, str):
            yield pattern, patterns.count_loops
    if isinstance(one.get("grammar"), str):
        yield one["grammar"], patterns.count_grammar_loops


def _parsed(name: str, text: str) -> Any:
    """Return the JSON of a constraint that came as a string."""
    body = text.encode("utf-8", "replace")
    check_structure(body, MAX_NESTING, len(body) + 1)
    try:
        return msgspec.json.decode(body)
    except msgspec.MsgspecError as error:
        raise BadBody(name, f"holds a schema that is not JSON: {error}", "send JSON", param=name) from error


def _check(name: str, found: int, most: int, what: str, setting: str) -> None:
    if found > most:
        fact = f"has {found} {what}, and {most} are allowed"
        raise TooComplex(name, fact, f"send a simpler one, or raise limits.{setting}", param=name)


def _endless(name: str, what: str) -> BadBody:
    return BadBody(
        name, f"{what} only ever refers to itself: no answer satisfies it", "let it end", param=name
    )
