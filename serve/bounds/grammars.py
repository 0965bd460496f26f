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

from serve.bounds import rules, schemas
from serve.bounds.patterns import MOST_REPEATS, WIDE, Cost, cost_of_pattern
from serve.bounds.structure import check_structure
from serve.errors import BadBody, TooComplex

MAX_NESTING = 64
"""Of a schema that came as a string; as an object it is nested in the body, which has a limit."""

PATTERNS_TOGETHER = 4
"""All patterns of a schema may have so many times the loops of one: they stand apart, and add up."""

TOUCHING_PER_LOOP = 2
"""Loops that touch may weigh so much for each loop that is allowed: eight of `.?` in a row."""

PAIRS_TOGETHER = 2
"""All objects may have as many pairs of properties as so many of the largest: each may follow each."""

ALTERNATIVES = 4
"""So many lengths in one union cost as much again: all of them are asked at each step."""

_RANGE = WIDE // 2
"""What a range of numbers costs, in positions of patterns; a named format costs a wide one."""

CONSTRAINTS = frozenset({"structured_outputs", "response_format", "text", "output_config", "tools"})
"""The fields of a request that constrain its answer; `tools` where one of them is forced."""


@dataclass(frozen=True, slots=True)
class GrammarLimits:
    """`bytes`: of all that constrains one answer; `pattern_bytes`: of one pattern or grammar.

    `loops` are those of one, `repetitions` the positions that all lengths and patterns unroll to.
    """

    bytes: int
    pattern_bytes: int
    loops: int
    properties: int
    repetitions: int


def check_grammars(fields: Mapping[str, Raw], limits: GrammarLimits) -> None:
    """Pass when what constrains the answer is within the limits, and can be satisfied.

    Raises: TooComplex, BadBody.
    """
    total = _Total(limits)
    for name in sorted(CONSTRAINTS & fields.keys()):
        raw = bytes(fields[name])
        value = _parsed(name, raw)
        total.add_bytes(name, len(raw) - _described(value))
        if name == "tools":
            total.add(name, value, made=_are_made(value, fields.get("tool_choice")))
        elif isinstance(value, dict):
            _check_constraint(name, value, total)


def _are_made(tools: Any, choice: Raw | None) -> bool:
    """Return whether the engine makes a grammar of tools: one is forced, or wants to be strict."""
    asked = None if choice is None else _parsed("tool_choice", bytes(choice))
    kind = asked.get("type") if isinstance(asked, dict) else asked
    if kind not in (None, "auto", "none"):
        return True
    return any(one.get("strict") not in (None, False) for one in schemas.schemas_in(tools))


def _described(value: Any) -> int:
    """Return the bytes of descriptions: they cost a prompt, and no grammar."""
    texts = (one.get("description") for one in schemas.schemas_in(value))
    return sum(len(text) for text in texts if isinstance(text, str))


def _check_constraint(name: str, value: dict[str, Any], total: _Total) -> None:
    for key in ("json", "structural_tag"):
        text = value.get(key)
        if isinstance(text, str):
            value = {**value, key: _parsed(name, text.encode("utf-8", "replace"), within=MAX_NESTING)}
    total.add(name, value)
    if schemas.is_endless(_schema_of(value)):
        raise _endless(name, "the schema")


def _schema_of(value: dict[str, Any]) -> Any:
    """Return the schema of a constraint, wherever its field keeps it, or an empty one."""
    if "json" in value:
        return value["json"]
    inner = value.get("json_schema", value.get("format"))
    return inner.get("schema", {}) if isinstance(inner, dict) else {}


class _Total:
    """What all constraints of one request cost; what stands there twice is made once."""

    def __init__(self, limits: GrammarLimits) -> None:
        self._limits = limits
        self._bytes = self._loops = self._pairs = self._positions = 0
        self._seen: set[tuple[str | float, ...]] = set()

    def add_bytes(self, name: str, size: int) -> None:
        """Add the bytes of one field."""
        self._bytes += size
        _check(name, self._bytes, self._limits.bytes, "bytes", "max_grammar_bytes")

    def add(self, name: str, value: Any, *, made: bool = True) -> None:
        """Add every schema, pattern and grammar in `value`; what is not made unrolls to nothing."""
        limits = self._limits
        for one in schemas.schemas_in(value):
            found = schemas.count_properties(one)
            _check(name, found, limits.properties, "properties in one object", "max_properties")
            if made:
                self._pairs += found**2
                self._add_numbers(one)
            for pattern, cost_of in _patterns(one):
                self._add_pattern(name, pattern, cost_of, made=made)
            if isinstance(one.get("grammar"), str) and rules.is_endless(one["grammar"]):
                raise _endless(name, "the grammar's root")
        most = PAIRS_TOGETHER * limits.properties**2
        _check(name, self._pairs, most, "pairs of properties in all objects", "max_properties")
        most = PATTERNS_TOGETHER * limits.loops
        _check(name, self._loops, most, "repetitions in all patterns", "max_loops")
        found = self._positions // WIDE
        what = "repeated characters in all lengths and patterns"
        _check(name, found, limits.repetitions, what, "max_repetitions")

    def _add_numbers(self, schema: dict[str, Any]) -> None:
        lengths, bounds = schemas.lengths_of(schema), schemas.range_of(schema)
        if any(lengths) and self._is_new(("length", *lengths)):
            self._positions += _unrolled(lengths)
        for alternatives in schemas.alternatives_of(schema):
            times = len(alternatives) // ALTERNATIVES
            self._positions += times * sum(map(_unrolled, alternatives))
        if isinstance(schema.get("format"), str):
            self._positions += WIDE
        if bounds and self._is_new(("range", *bounds)):
            self._positions += _RANGE

    def _add_pattern(self, name: str, pattern: str, cost_of: Callable[[str], Cost], *, made: bool) -> None:
        limits = self._limits
        _check(name, len(pattern), limits.pattern_bytes, "characters in a pattern", "max_pattern_bytes")
        cost = cost_of(pattern)
        _check(name, cost.loops, limits.loops, "repetitions in a pattern", "max_loops")
        most = TOUCHING_PER_LOOP * limits.loops
        _check(name, cost.touching, most, "as the weight of repetitions next to each other", "max_loops")
        self._loops += cost.loops
        if made and self._is_new(("pattern", pattern)):
            self._positions += cost.positions

    def _is_new(self, part: tuple[str | float, ...]) -> bool:
        known = part in self._seen
        self._seen.add(part)
        return not known


def _unrolled(lengths: tuple[float, float]) -> int:
    return int(min(max(lengths), MOST_REPEATS)) * WIDE


def _patterns(one: dict[str, Any]) -> Iterator[tuple[str, Callable[[str], Cost]]]:
    """Yield the patterns of one object, each with what tells its cost."""
    for pattern in (one.get("regex"), one.get("whitespace_pattern"), *schemas.patterns_of(one)):
        if isinstance(pattern, str):
            yield pattern, cost_of_pattern
    if isinstance(one.get("grammar"), str):
        yield one["grammar"], rules.cost_of_grammar


def _parsed(name: str, body: bytes, *, within: int | None = None) -> Any:
    """Return the JSON of a constraint; `within` is how deep one may nest that came as a string.

    Raises: BadBody: no JSON, or a number that none can hold. TooComplex.
    """
    if within is not None:
        check_structure(body, within, len(body) + 1)
    try:
        return msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadBody(name, f"holds what is not JSON: {error}", "send JSON", param=name) from error


def _check(name: str, found: int, most: int, what: str, setting: str) -> None:
    if found > most:
        fact = f"has {found} {what}, and {most} are allowed"
        raise TooComplex(name, fact, f"send a simpler one, or raise limits.{setting}", param=name)


def _endless(name: str, what: str) -> BadBody:
    return BadBody(
        name, f"{what} only ever refers to itself: no answer satisfies it", "let it end", param=name
    )
