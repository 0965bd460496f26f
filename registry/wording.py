"""What pydantic and click find wrong, in this product's words: the one place for files, bodies and options.

Imports neither: a fault is what pydantic's `errors()` gives, click's is a text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_LIST, _TABLE = "must be a list", "must hold keys and values"
_NUMBER, _WHOLE = "must be a number", "must be a whole number"
_FACTS = {
    "missing": "is missing",
    "extra_forbidden": "is not known",
    "tuple_type": _LIST, "list_type": _LIST, "set_type": _LIST, "frozen_set_type": _LIST,
    "dict_type": _TABLE, "mapping_type": _TABLE, "model_type": _TABLE, "model_attributes_type": _TABLE,
    "int_type": _WHOLE, "int_parsing": _WHOLE, "int_from_float": _WHOLE,
    "float_type": _NUMBER, "float_parsing": _NUMBER, "finite_number": "must be a finite number",
    "bool_type": "must be true or false", "bool_parsing": "must be true or false",
    "string_type": "must be text", "path_type": "must be a path",
}  # fmt: skip
_OWN = frozenset({"value_error", "assertion_error"})
"""Kinds of a fault whose words are ours already, and name what was found."""

_CLICKS = (
    (re.compile(r"is not a valid integer( range)?"), "is not a whole number"),
    (re.compile(r"is not a valid float( range)?"), "is not a number"),
    (re.compile(r"is not a valid boolean"), "is neither true nor false"),
    (re.compile(r"is not in the range x>=?(\S+?)(?=\.?$)"), r"is below the least, \1"),
    (re.compile(r"is not in the range x<=?(\S+?)(?=\.?$)"), r"is above the most, \1"),
    (re.compile(r"is not in the range (\S+?)<=?x<=?(\S+?)(?=\.?$)"), r"is not between \1 and \2"),
)


def fact_of(fault: Mapping[str, Any]) -> str:
    """Return what is wrong with one value, and what was found where that is short."""
    kind, found = fault["type"], fault.get("input")
    if kind in _OWN:
        return str(fault.get("ctx", {}).get("error") or _plain(fault["msg"])).rstrip(".")
    fact = _FACTS.get(kind) or _plain(fault["msg"])
    if kind in {"missing", "extra_forbidden"} or not isinstance(found, str | int | float | None):
        return fact
    return f"{fact}, not {found!r}"


def option_fact(text: str) -> str:
    """Return what click says of a wrong value."""
    for pattern, words in _CLICKS:
        text = pattern.sub(words, text)
    return text


def _plain(text: str) -> str:
    text = re.sub(r"^(?:Value error|Assertion failed), ", "", text)
    return re.sub(r"^(?:Input|String|List|Tuple|Set|Value|Data|URL) should ", "must ", text).rstrip(".")
