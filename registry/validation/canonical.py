"""Strict JSON in, canonical JSON out.

Owns the one spelling of a JSON value that is hashed. Not the shapes of documents. Invariant: equal values
have equal bytes, and what two parsers could read differently (a key given twice, `NaN`) is refused.
"""

from __future__ import annotations

import codecs
import hashlib
import json
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from pydantic import JsonValue

# Far beyond any config; far below where the interpreter's own recursion limit would decide.
_MAX_DEPTH = 64


def parse_json(data: bytes) -> JsonValue:
    """Parse UTF-8 JSON.

    Raises: ValueError: also for a key given twice, `NaN` or `Infinity`, nesting too deep, no UTF-8.
    """
    try:
        value: JsonValue = json.loads(
            data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_refuse_constant
        )
    except RecursionError as error:
        raise ValueError("is nested too deeply") from error
    return value


def parse_document(data: bytes) -> JsonValue:
    """Parse JSON as `parse_json` does, if it can also be written again (depth, lone surrogates).

    Raises: ValueError.
    """
    value = parse_json(data)
    if not _is_shallow(value, _MAX_DEPTH):
        raise ValueError(f"is nested deeper than {_MAX_DEPTH} levels")
    canonical_json(value)
    return value


def decode_document(data: bytes) -> bytes:
    """Return a document as UTF-8 without a mark: editors on Windows write one, or UTF-16 with one.

    Raises: ValueError: for UTF-16 that is none.
    """
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return data.decode("utf-16").encode()
    return data.removeprefix(codecs.BOM_UTF8)


def canonical_json(value: JsonValue) -> bytes:
    """Return the compact form with sorted keys that digests are made of."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def readable_json(value: JsonValue) -> bytes:
    """Return the canonical form of files that people also read: sorted keys, two spaces, a final newline."""
    return (json.dumps(value, sort_keys=True, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def sha256_hex(data: bytes) -> str:
    """Return the SHA-256 of `data` in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def _is_shallow(value: JsonValue, levels: int) -> bool:
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels > 0 and all(_is_shallow(child, levels - 1) for child in children)


def _unique(pairs: list[tuple[str, JsonValue]]) -> dict[str, JsonValue]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"gives the key {twice!r} twice")
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"holds {name}, which is not JSON")
