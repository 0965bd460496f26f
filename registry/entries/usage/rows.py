"""One line of usage, sums of many, and how many lines there may be (pure).

Owns the bytes of a document of lines. Invariant: whatever is summed or left out by name, no request and no
token of a group is lost.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from registry.errors import CorruptStore
from registry.storage.entry import Entry

if TYPE_CHECKING:
    from pydantic import JsonValue

OTHER = "(other)"
"""Stands for the keys, adapters or groups that a bounded document has no room to name; none is called so."""

MAX_ROWS = 2_000
"""Most lines of one document: about 150 KB."""

_MOST_GROUPS = 500
_Key = TypeVar("_Key")


@dataclass(frozen=True, slots=True)
class UsageRow:
    """What one key of one group used of one adapter in one day (UTC); `adapter` is `base` for the base model.

    `requests` were answered, whole or in part, `refused` were not let in by a limit. `cached_tokens` are
    those of the input that the prefix cache had.
    """

    group: str
    key: str
    adapter: str
    requests: int = 0
    refused: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0

    @property
    def tokens(self) -> int:
        """Return input and output together."""
        return self.input_tokens + self.output_tokens

    def plus(self, other: UsageRow) -> UsageRow:
        """Return the sum, under this row's names."""
        return UsageRow(
            self.group,
            self.key,
            self.adapter,
            self.requests + other.requests,
            self.refused + other.refused,
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cached_tokens + other.cached_tokens,
        )


def day_of(seconds: float) -> str:
    """Return the day (UTC) of UNIX `seconds` as `2026-01-31`."""
    return time.strftime("%Y-%m-%d", time.gmtime(seconds))


def merged(rows: Iterable[UsageRow]) -> list[UsageRow]:
    """Return one row for each group, key and adapter."""
    return list(summed(rows, lambda row: (row.group, row.key, row.adapter)).values())


def summed(rows: Iterable[UsageRow], by: Callable[[UsageRow], _Key]) -> dict[_Key, UsageRow]:
    """Return the sum of the rows of each value of `by`, under the names of the first."""
    found: dict[_Key, UsageRow] = {}
    for row in rows:
        name = by(row)
        before = found.get(name)
        found[name] = row if before is None else before.plus(row)
    return found


def bounded(rows: Iterable[UsageRow], most: int = MAX_ROWS) -> list[UsageRow]:
    """Return at most `most` rows: those with most tokens, and the rest by group without other names."""
    every = sorted(merged(rows), key=_weight, reverse=True)
    if len(every) <= most:
        return every
    groups = min(_MOST_GROUPS, most // 2)
    kept, rest = every[: most - groups - 1], every[most - groups - 1 :]
    folded = sorted(
        merged(UsageRow(row.group, OTHER, OTHER).plus(row) for row in rest), key=_weight, reverse=True
    )
    named, others = folded[:groups], folded[groups:]
    nameless = merged(UsageRow(OTHER, OTHER, OTHER).plus(row) for row in others)
    return merged([*kept, *named, *nameless])


def encode_rows(rows: Iterable[UsageRow]) -> list[JsonValue]:
    """Return rows as a JSON array of arrays."""
    return [
        [
            row.group,
            row.key,
            row.adapter,
            row.requests,
            row.refused,
            row.input_tokens,
            row.output_tokens,
            row.cached_tokens,
        ]
        for row in rows
    ]


def read_rows(path: Path) -> tuple[Entry, list[UsageRow]]:
    """Return a document and the rows in it.

    Raises: Missing; CorruptStore; StorageFailed.
    """
    entry = Entry.read(path)
    rows = entry.fields.get("rows")
    if not isinstance(rows, list):
        raise _broken(path)
    return entry, [_parse(path, row) for row in rows]


def _parse(path: Path, row: JsonValue) -> UsageRow:
    match row:
        case [str(group), str(key), str(adapter), *counts] if len(counts) >= 5:
            numbers = [one for one in counts[:5] if isinstance(one, int) and not isinstance(one, bool)]
            if len(numbers) == 5 and all(0 <= one < 2**63 for one in numbers):
                return UsageRow(group, key, adapter, *numbers)
    raise _broken(path)


def _broken(path: Path) -> CorruptStore:
    return CorruptStore(str(path), "holds no lines of usage", "restore it from a backup, or move it away")


def _weight(row: UsageRow) -> tuple[int, int]:
    return row.tokens, row.requests + row.refused
