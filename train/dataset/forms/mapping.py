"""How the rows of a file are to be read: which columns stand for which keys, and what was accepted.

Owns the mapping of columns. `columns` names our key of a form, then the file's column: `{"prompt": "frage"}`.
A column may lie inside another (`answers.text`, `answers.text.0`); a value that begins with `=` is not a
column but a fixed text (`{"system": "=Answer in one word."}`). Columns that are mapped are read as nothing
else.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from registry.errors import UsageError
from train.dataset.records import Malformed
from train.dataset.sources import Where, read_lines

FIXED = "="
KEYS = (
    "messages", "conversations", "prompt", "completion", "context", "system", "instruction", "input",
    "output", "history", "chosen", "rejected", "label", "text", "tools",
)  # fmt: skip
"""The keys that a column can stand for."""
_OPTIONAL = frozenset({"context", "system", "input", "history", "tools"})
_SEARCHED_ROWS = 1000
_BETWEEN = re.compile(r",(?=[^,=]*=)")


@dataclass(frozen=True, slots=True)
class RowMapping:
    """Our keys by the columns that stand for them, and the findings that a person has accepted."""

    columns: Mapping[str, str] = field(default_factory=dict)
    accept: frozenset[str] = frozenset()

    def renamed(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Return `row` with our keys instead of the mapped columns; what it lacks is left out."""
        found = ((key, _at(row, column)) for key, column in self.columns.items())
        given = {key: _as_text(key, value) for key, value in found if value is not None}
        used = {*self.columns, *self.columns.values(), *(one.split(".")[0] for one in self.columns.values())}
        return given | {key: value for key, value in row.items() if key not in used}

    @property
    def needed(self) -> frozenset[str]:
        """Return our keys that every row must have a value for."""
        return frozenset(self.columns.keys() - _OPTIONAL)

    def missing(self, row: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the mapped columns that `row` does not have."""
        return tuple(column for column in self.columns.values() if _at(row, column) is None)


PLAIN = RowMapping()


def checked_columns(columns: Mapping[str, str]) -> dict[str, str]:
    """Return `columns`, whose keys must be ours.

    Raises: ValueError: a key that no form has, or no column.
    """
    for key, column in columns.items():
        if key not in KEYS:
            raise ValueError(f"{key!r} is not a key of a form: {_nearest(key, KEYS)}")
        if not column.strip() or column == FIXED:
            raise ValueError(f"{key} names no column: write {key}=COLUMN, or {key}==TEXT for a fixed text")
    return dict(columns)


def parse_columns(written: Iterable[str]) -> dict[str, str]:
    """Return the mapping that `prompt=frage,completion=antwort` means; later ones win.

    Raises: UsageError.
    """
    found: dict[str, str] = {}
    for part in itertools.chain.from_iterable(map(_BETWEEN.split, written)):
        key, equals, column = part.strip().partition("=")
        if not equals:
            remedy = "write KEY=COLUMN, parted by commas: prompt=frage,completion=antwort"
            raise UsageError("--columns", f"{part.strip()!r} maps nothing", remedy, param="columns")
        found[key.strip()] = column.strip()
    try:
        return checked_columns(found)
    except ValueError as error:
        raise UsageError("--columns", str(error), "see train/dataset/README.md", param="columns") from error


def require_columns(path: Where, reading: RowMapping) -> None:
    """Refuse a mapping to a column that none of the first 1,000 rows of the file at `path` has.

    Raises: UsageError: naming the columns that are there; the file cannot be read.
    """
    if not reading.columns:
        return
    wanted, seen = set(reading.columns.values()), dict[str, None]()
    for line in itertools.islice(read_lines(path), _SEARCHED_ROWS):
        try:
            row = line.parse()
        except Malformed:
            continue
        if isinstance(row, dict):
            wanted.intersection_update(reading.missing(row))
            seen.update(dict.fromkeys(row))
        if not wanted:
            return
    missing = next((one for one in reading.columns.items() if one[1] in wanted), None)
    if missing is not None and seen:
        fact = f"no row has the column {missing[1]!r}, which stands for {missing[0]}"
        raise UsageError(str(path), fact, _nearest(missing[1], list(seen)), param="columns")


def _at(row: Mapping[str, Any], column: str) -> Any:
    if column.startswith(FIXED):
        return column[1:]
    if column in row:
        return row[column]
    value: Any = row
    for step in column.split("."):
        if isinstance(value, Mapping):
            value = value.get(step)
        elif isinstance(value, list) and step.isdecimal() and int(step) < len(value):
            value = value[int(step)]
        else:
            return None
    return value


def _as_text(key: str, value: Any) -> Any:
    # Whoever maps a column of classes or numbers to an answer wants them as texts.
    return json.dumps(value) if isinstance(value, int | float) and key != "label" else value


def _nearest(name: str, names: Sequence[str]) -> str:
    near = get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"{hint}there are {', '.join(names[:20])}{', …' if len(names) > 20 else ''}"
