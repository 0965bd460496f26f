"""JSON schemas, as far as they tell what they cost and whether anything satisfies them (pure).

Everything here is linear in the schema: its own cost is bounded by its bytes.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator
from typing import Any

from serve.bounds.ending import Needs

_VALUES = frozenset({"const", "default", "description", "enum", "examples", "title"})
"""Keywords that hold values and words, not schemas."""

_NAMED = frozenset(
    {"$defs", "definitions", "dependencies", "dependentSchemas", "patternProperties", "properties"}
)
"""Keywords that hold schemas by name; a name may be that of a keyword."""

_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")

_ALWAYS, _NEVER = "always", "never"

_INDEX = re.compile(r"[0-9]{1,9}")


def schemas_in(value: Any) -> Iterator[dict[str, Any]]:
    """Yield every object in `value` that may be a schema, `value` first.

    What stands under a keyword for values is left out, unless a reference may name it.
    """
    found = list(_walk(value, _VALUES))
    if any(_may_name_a_value(one.get("$ref")) for one in found):
        yield from _walk(value, frozenset())
    else:
        yield from found


def _walk(value: Any, left_out: frozenset[str]) -> Iterator[dict[str, Any]]:
    found = [value]
    while found:
        one = found.pop()
        if isinstance(one, list):
            found += one
        elif isinstance(one, dict):
            yield one
            for key, inner in one.items():
                if key in _NAMED and isinstance(inner, dict):
                    found += inner.values()
                elif key not in left_out:
                    found.append(inner)


def _may_name_a_value(ref: Any) -> bool:
    return isinstance(ref, str) and ("%" in ref or not _VALUES.isdisjoint(ref.split("/")))


def patterns_of(schema: dict[str, Any]) -> Iterator[Any]:
    """Yield the regular expressions of one schema, without those inside it; some may be not text."""
    yield schema.get("pattern")
    yield from _mapping(schema.get("patternProperties"))


def count_properties(schema: dict[str, Any]) -> int:
    """Return how many properties one schema names."""
    return len(_mapping(schema.get("properties")))


def lengths_of(schema: dict[str, Any]) -> tuple[float, float]:
    """Return the least and the greatest length that one schema allows a text, 0 where it says none."""
    return _number(schema.get("minLength")), _number(schema.get("maxLength"))


def alternatives_of(schema: dict[str, Any]) -> Iterator[set[tuple[float, float]]]:
    """Yield the different lengths that the alternatives of one schema allow a text."""
    for keyword in ("anyOf", "oneOf"):
        choices = schema.get(keyword)
        if isinstance(choices, list):
            yield {lengths_of(one) for one in choices if isinstance(one, dict)} - {(0, 0)}


def range_of(schema: dict[str, Any]) -> tuple[float, ...]:
    """Return the bounds that one schema sets a number."""
    return tuple(_number(schema[name]) for name in _BOUNDS if name in schema)


def is_endless(schema: Any) -> bool:
    """Return True for a schema that no finite value satisfies, because it only ever refers on.

    `{"$ref": "#"}` is one; so is an object that must hold another of its own kind.
    """
    needs, unread, read = Needs(), [schema], set()
    needs.need(_NEVER, ())
    while unread:
        one = unread.pop()
        needs.add(_key(one))
        if not isinstance(one, dict) or id(one) in read:
            continue
        read.add(id(one))
        for choices in _needs_of(one, schema):
            needs.need(id(one), [_key(choice) for choice in choices])
            unread += choices
    return _key(schema) not in needs.ending()


def _key(schema: Any) -> Hashable:
    """Return what a schema is known by; `id` does as every schema lives as long as the whole."""
    if isinstance(schema, dict):
        return id(schema)
    return _NEVER if schema is False else _ALWAYS


def _needs_of(schema: dict[str, Any], root: Any) -> Iterator[list[Any]]:
    """Yield the choices of each need of one schema: one of each must end."""
    if isinstance(schema.get("$ref"), str):
        yield [_resolve(root, schema["$ref"])]
    for keyword in ("anyOf", "oneOf"):
        choices = schema.get(keyword)
        if isinstance(choices, list) and choices:
            yield choices
    parts = schema.get("allOf")
    for part in parts if isinstance(parts, list) else ():
        yield [part]
    required, properties = schema.get("required"), _mapping(schema.get("properties"))
    for name in required if isinstance(required, list) else ():
        if isinstance(name, str) and name in properties:
            yield [properties[name]]
    least = schema.get("minItems")
    if isinstance(least, int) and least > 0 and "prefixItems" not in schema and "items" in schema:
        yield [schema["items"]]


def _resolve(schema: Any, ref: str) -> Any:
    """Return what a local reference names; what it does not find, or is not a local one, is taken to end."""
    if not ref.startswith("#"):
        return True
    found = schema
    for part in filter(None, ref[1:].split("/")):
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(found, dict) and name in found:
            found = found[name]
        elif isinstance(found, list) and _INDEX.fullmatch(name) and int(name) < len(found):
            found = found[int(name)]
        else:
            return True
    return found


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _number(value: Any) -> float:
    return value if isinstance(value, (int, float)) else 0
