"""Whole numbers of a body, as vLLM would read them: pydantic takes `"10"` and `10.0` for 10 (pure)."""

from __future__ import annotations

import msgspec
from msgspec import Raw


def whole_number(raw: Raw) -> int | None:
    """Return the number that a field holds, None where it is null or none that vLLM could take.

    Of a text that only Python reads as a number more is taken than vLLM does.
    """
    try:
        value = msgspec.json.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    if isinstance(value, str):
        value = _parsed(value)
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    return int(value) if isinstance(value, int) else None


def _parsed(text: str) -> float | int | None:
    for read in (int, float):
        try:
            return read(text)
        except ValueError:
            continue
    return None
