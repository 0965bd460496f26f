"""JSON schemas, as far as they tell what they cost and whether anything satisfies them (pure)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

_VALUES = frozenset({"const", "default", "description", "enum", "examples", "title"})
"""Keywords that hold values and words, not schemas."""


def schemas_in(value: Any) -> Iterator[dict[str, Any]]:
    """Yield every object in `value` that may be a schema, `value` first."""
    found = [value]
    while found:
        one = found.pop()
        if isinstance(one, list):
            found += one
        elif isinstance(one, dict):
            yield one
            found += [inner for key, inner in one.items() if key not in _VALUES]


def patterns_of(schema: dict[str, Any]) -> Iterator[Any]:
    """Yield the regular expressions of one schema, without those inside it; some may be no text."""
    yield schema.get("pattern")
    yield from _mapping(schema.get("patternProperties"))


def count_properties(schema: dict[str, Any]) -> int:
    """Return how many properties one schema names."""
    return len(_mapping(schema.get("properties")))


def is_endless(schema: Any) -> bool:
    """Return True for a schema that no finite value satisfies, because it only ever refers on.

    `{"$ref": "#"}` is one; so is an object that must hold another of its own kind.
    """
    targets = {
        one["$ref"]: _resolve(schema, one["$ref"])
        for one in schemas_in(schema)
        if isinstance(one.get("$ref"), str)
    }
    if not targets:
        return False
    ending: set[str] = set()
    grown = True
    while grown:
        more = {ref for ref, target in targets.items() if _ends(target, ending)} - ending
        ending |= more
        grown = bool(more)
    return not _ends(schema, ending)


def _ends(schema: Any, ending: set[str]) -> bool:
    """Return whether a value satisfies `schema`, given the references for which one does."""
    if not isinstance(schema, dict):
        return schema is not False
    if isinstance(schema.get("$ref"), str) and schema["$ref"] not in ending:
        return False
    for keyword in ("anyOf", "oneOf"):
        choices = schema.get(keyword)
        if isinstance(choices, list) and choices and not any(_ends(one, ending) for one in choices):
            return False
    parts = schema.get("allOf")
    if isinstance(parts, list) and not all(_ends(one, ending) for one in parts):
        return False
    return all(_ends(one, ending) for one in _needed(schema))


def _needed(schema: dict[str, Any]) -> Iterator[Any]:
    """Yield the schemas of what a value must hold."""
    required, properties = schema.get("required"), _mapping(schema.get("properties"))
    for name in required if isinstance(required, list) else ():
        if isinstance(name, str) and name in properties:
            yield properties[name]
    least = schema.get("minItems")
    if isinstance(least, int) and least > 0 and "prefixItems" not in schema and "items" in schema:
        yield schema["items"]


def _resolve(schema: Any, ref: str) -> Any:
    """Return what a local reference names; what it does not find, or is no local one, is taken to end."""
    if not ref.startswith("#"):
        return {}
    found = schema
    for part in filter(None, ref[1:].split("/")):
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(found, dict) and name in found:
            found = found[name]
        elif isinstance(found, list) and name.isdigit() and int(name) < len(found):
            found = found[int(name)]
        else:
            return {}
    return found


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
