"""One JSON document of the store, read with its types checked.

Owns the way from bytes to typed fields; the nouns (versions, aliases, …) own which fields there are.
Invariant: a document that is not what its reader needs, whatever is in it, is a `CorruptStore` that names the
file and the field. Unknown fields are ignored, so that a newer minor version can add some.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Never

from registry.errors import CorruptStore
from registry.storage import disk

if TYPE_CHECKING:
    from pydantic import JsonValue


MAX_BYTES = 16 * 1024**2
"""Longest document; ours have some kilobytes, a lineage or a gate some hundred."""

MAX_DEPTH = 64
"""Deepest nesting of a document; ours have less than ten, a policy or a plan less than twenty."""

LARGEST_NUMBER = 1e18
"""No time, size or score of ours comes near it."""


class Entry:
    """The fields of one document; `path` is where it lies, for messages."""

    __slots__ = ("_fields", "path")

    def __init__(self, path: Path, fields: Mapping[str, JsonValue]) -> None:
        self.path = path
        self._fields = fields

    @property
    def fields(self) -> Mapping[str, JsonValue]:
        """Return all fields, as they stand there."""
        return self._fields

    @classmethod
    def parse(cls, path: Path, raw: bytes) -> Entry:
        """Parse `raw`, the content of `path`.

        Raises: CorruptStore.
        """
        try:
            fields = parse(raw)
        except ValueError as error:
            raise CorruptStore(str(path), f"is not JSON ({error})", _REMEDY) from error
        if not isinstance(fields, dict):
            raise CorruptStore(str(path), "is not a JSON object", _REMEDY)
        return cls(path, fields)

    @classmethod
    def read(cls, path: Path) -> Entry:
        """Read the document at `path`.

        Raises: Missing; CorruptStore; StorageFailed.
        """
        return cls.parse(path, disk.read(path, limit=MAX_BYTES))

    def text(self, key: str) -> str:
        """Return a string."""
        value = self._fields.get(key)
        return value if isinstance(value, str) else self._refuse(key, "a string")

    def optional_text(self, key: str) -> str | None:
        """Return a string, or None where the field is null or absent."""
        return None if self._fields.get(key) is None else self.text(key)

    def integer(self, key: str) -> int:
        """Return an integer of 64 bits."""
        value = self._fields.get(key)
        if isinstance(value, bool) or not isinstance(value, int) or abs(value) >= 2**63:
            return self._refuse(key, "an integer of 64 bits")
        return value

    def optional_integer(self, key: str) -> int | None:
        """Return an integer, or None where the field is null or absent."""
        return None if self._fields.get(key) is None else self.integer(key)

    def flag(self, key: str) -> bool:
        """Return true or false."""
        value = self._fields.get(key)
        return value if isinstance(value, bool) else self._refuse(key, "true or false")

    def number(self, key: str) -> float:
        """Return a finite number, whole or not, as a float."""
        value = self._fields.get(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < LARGEST_NUMBER:
            return self._refuse(key, "a number")
        return float(value)

    def optional_number(self, key: str) -> float | None:
        """Return a number, or None where the field is null or absent."""
        return None if self._fields.get(key) is None else self.number(key)

    def texts(self, key: str) -> tuple[str, ...]:
        """Return a list of strings."""
        value = self._fields.get(key)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            return self._refuse(key, "a list of strings")
        return tuple(str(item) for item in value)

    def entries(self, key: str) -> list[Entry]:
        """Return a list of objects."""
        value = self._fields.get(key)
        if not isinstance(value, list):
            return self._refuse(key, "a list of objects")
        return [Entry(self.path, self._object(key, item)) for item in value]

    def mapping(self, key: str) -> dict[str, JsonValue]:
        """Return an object."""
        return self._object(key, self._fields.get(key))

    def _object(self, key: str, value: JsonValue) -> dict[str, JsonValue]:
        return value if isinstance(value, dict) else self._refuse(key, "an object")

    def _refuse(self, key: str, wanted: str) -> Never:
        # TOML has dates and times, which JSON has not.
        found = json.dumps(self._fields.get(key), default=str)[:80]
        raise CorruptStore(str(self.path), f"field {key} is {found}, not {wanted}", _REMEDY)


def parse(raw: bytes) -> JsonValue:
    """Return the JSON value that `raw` holds; NaN and infinity, which are no JSON, count as null.

    Raises: ValueError: no JSON, nested deeper than `MAX_DEPTH`, or text that no UTF-8 can hold.
    """
    try:
        value: JsonValue = json.loads(raw, parse_constant=lambda _: None)
    except RecursionError:
        raise ValueError(f"nested deeper than {MAX_DEPTH}") from None
    if raw.count(b"[") + raw.count(b"{") > MAX_DEPTH and _depth(value) > MAX_DEPTH:
        raise ValueError(f"nested deeper than {MAX_DEPTH}")
    if b"\\u" in raw:
        json.dumps(value, ensure_ascii=False).encode()  # half of a surrogate pair is a UnicodeEncodeError
    return value


def _depth(value: JsonValue) -> int:
    depth, level = 0, [value]
    while level:
        depth += 1
        level = [inner for one in level for inner in _inside(one)]
    return depth - 1  # what holds nothing is not a level


def _inside(value: JsonValue) -> Iterator[JsonValue]:
    if isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list):
        yield from value


def encode(fields: Mapping[str, JsonValue]) -> bytes:
    """Return `fields` as the bytes of a document, keys sorted."""
    return json.dumps(fields, sort_keys=True, ensure_ascii=False, indent=1).encode() + b"\n"


def encode_claim(fields: Mapping[str, JsonValue]) -> bytes:
    """Return `fields` as the bytes of a log entry: with a token that no other writer has."""
    return encode({**fields, "token": uuid.uuid4().hex})


_REMEDY = "restore the file from a backup"
