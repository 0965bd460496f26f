"""What OpenAI says of a value that is too small, too large, too long or too many (pure)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_SIDES: Mapping[str, tuple[str, str, str]] = {
    "greater_than": ("below minimum", ">", "below_min"),
    "greater_than_equal": ("below minimum", ">=", "below_min"),
    "less_than": ("above maximum", "<", "above_max"),
    "less_than_equal": ("above maximum", "<=", "above_max"),
}
_BOUNDS: Mapping[str, str] = {
    "greater_than": "gt", "greater_than_equal": "ge", "less_than": "lt", "less_than_equal": "le",
}  # fmt: skip


def range_fact(kind: str, context: Mapping[str, Any], found: Any) -> tuple[str, str] | None:
    """Return the fact and OpenAI's code for what pydantic calls `kind`, None where it is no range."""
    if kind in _SIDES:
        side, sign, code = _SIDES[kind]
        noun = "integer" if isinstance(found, int) else "decimal"
        fact = f"{noun} {side} value. Expected a value {sign} {context[_BOUNDS[kind]]}, but got {found}"
        return f"{fact} instead.", f"{noun}_{code}_value"
    if kind in {"string_too_long", "string_too_short"}:
        return _length(kind, context, len(found))
    if kind in {"too_long", "too_short"}:
        return _count(kind, context, found)
    return None


def _length(kind: str, context: Mapping[str, Any], size: int) -> tuple[str, str]:
    if kind == "string_too_long":
        wanted = f"a string with maximum length {context['max_length']}"
        return f"string too long. Expected {wanted}, but got a string with length {size} instead.", (
            "string_above_max_length"
        )
    wanted = f"a string with minimum length {context['min_length']}"
    if size == 0:
        return f"empty string. Expected {wanted}, but got an empty string instead.", "empty_string"
    return f"string too short. Expected {wanted}, but got a string with length {size} instead.", (
        "string_below_min_length"
    )


def _count(kind: str, context: Mapping[str, Any], found: Any) -> tuple[str, str]:
    size = len(found)
    if isinstance(found, Mapping):
        few, word = ("many", "most") if kind == "too_long" else ("few", "least")
        limit = context["max_length"] if kind == "too_long" else context["min_length"]
        code = "object_above_max_properties" if kind == "too_long" else "object_below_min_properties"
        fact = f"too {few} properties. Expected an object with at {word} {limit} properties"
        return f"{fact}, but got an object with {size} properties instead.", code
    if kind == "too_short" and size == 0:
        wanted = f"Expected an array with minimum length {context['min_length']}"
        return f"empty array. {wanted}, but got an empty array instead.", "empty_array"
    side, word = ("long", "maximum") if kind == "too_long" else ("short", "minimum")
    limit = context["max_length"] if kind == "too_long" else context["min_length"]
    code = "array_above_max_length" if kind == "too_long" else "array_below_min_length"
    fact = f"array too {side}. Expected an array with {word} length {limit}"
    return f"{fact}, but got an array with length {size} instead.", code
