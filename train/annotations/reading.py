"""A file of annotations: rows in any of their forms in, items with everybody's label out.

Owns the forms: a row per label (`item`, `annotator`, `label`), a row per item with `labels` by annotator or
as a list, with `annotations` as a list of `annotator` and `label`, or with a column for each annotator.
Invariants: an item has one label of each annotator at most; labels are texts (1, 1.0 and "1" are one label);
whatever cannot be read is an error that names its row.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from registry.errors import UsageError
from train.dataset.forms.mapping import RowMapping
from train.dataset.records import Malformed
from train.dataset.sources import RawRow, name_row, read_lines

CONTENT = ("system", "context", "prompt", "messages", "text", "completion")
"""The keys of what is annotated; they go into the consensus."""
KEYS = ("id", "item", "annotator", "label", "labels", "annotations", *CONTENT)
"""The keys that a column can stand for."""
_FORMS = (
    "write `item`, `annotator` and `label`, or `labels` by annotator, or `annotations`; "
    "--columns names other columns, --annotators those that hold one annotator's labels each"
)


@dataclass(slots=True)
class AnnotatedItem:
    """One thing that was annotated; `row` is where it stands first, `labels` are by annotator."""

    id: str
    row: int
    content: dict[str, Any] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AnnotationColumns:
    """How a file is read: our keys by its columns, and the columns that hold one annotator's labels each."""

    keys: Mapping[str, str] = field(default_factory=dict)
    annotators: Sequence[str] = ()


def parse_keys(written: Sequence[str]) -> dict[str, str]:
    """Return the mapping that `item=task,label=rating` means.

    Raises: UsageError.
    """
    found: dict[str, str] = {}
    for part in ",".join(written).split(",") if written else ():
        key, equals, column = (text.strip() for text in part.partition("="))
        if not equals or not column:
            remedy = "write KEY=COLUMN, parted by commas: item=task,label=rating"
            raise UsageError("--columns", f"{part.strip()!r} maps nothing", remedy, param="columns")
        if key not in KEYS:
            near = get_close_matches(key, KEYS, n=1)
            remedy = f"did you mean {near[0]}?" if near else f"keys: {', '.join(KEYS)}"
            raise UsageError("--columns", f"{key!r} is not a key of annotations", remedy, param="columns")
        found[key] = column
    return found


def read_annotations(path: Path, columns: AnnotationColumns | None = None) -> list[AnnotatedItem]:
    """Return the items of the file at `path` in the order in which they stand there.

    Raises: UsageError: naming file and row.
    """
    read = columns or AnnotationColumns()
    reading = RowMapping(read.keys)
    items: dict[str, AnnotatedItem] = {}
    for line in read_lines(path):
        try:
            row = _row(line, reading, read)
            _take(row, line.number, read.annotators, items)
        except Malformed as error:
            raise UsageError(name_row(path, line.number), str(error), _FORMS) from error
    if not any(item.labels for item in items.values()):
        raise UsageError(str(path), "holds no label", _FORMS)
    return list(items.values())


def _row(line: RawRow, reading: RowMapping, columns: AnnotationColumns) -> dict[str, Any]:
    row = line.parse()
    if not isinstance(row, dict):
        raise Malformed("is no JSON object")
    missing = [*reading.missing(row), *(name for name in columns.annotators if name not in row)]
    if missing:
        raise Malformed(f"has no column {missing[0]!r}; there are {', '.join(list(row)[:20]) or 'none'}")
    return {**row, **reading.renamed(row)} if columns.keys else row


def _take(row: dict[str, Any], number: int, columns: Sequence[str], items: dict[str, AnnotatedItem]) -> None:
    given = list(_labels(row, columns))
    name = _identity(row, number)
    item = items.setdefault(name, AnnotatedItem(name, number))
    _keep_content(item, row, number)
    for annotator, value in given:
        label = _label(value)
        if label is None:
            continue
        if annotator in item.labels:
            fact = (
                f"is the second label of {annotator!r} for {name!r} (the first: row {item.rows[annotator]})"
            )
            raise Malformed(fact)
        item.labels[annotator] = label
        item.rows[annotator] = number


def _labels(row: Mapping[str, Any], columns: Sequence[str]) -> Iterator[tuple[str, object]]:
    """Yield annotators with their labels as they stand in a row."""
    if columns:
        yield from ((name, row[name]) for name in columns)
    elif "annotations" in row:
        yield from _entries(row["annotations"])
    elif "labels" in row:
        yield from _side_by_side(row["labels"])
    elif "annotator" in row and "label" in row:
        yield _name(row["annotator"]), row["label"]
    else:
        raise Malformed("has no `annotator` with `label`, no `labels` and no `annotations`")


def _entries(written: object) -> Iterator[tuple[str, object]]:
    if not isinstance(written, list):
        raise Malformed(f"annotations is {_kind(written)}, not a list")
    for place, entry in enumerate(written):
        if not isinstance(entry, dict) or not {"annotator", "label"} <= entry.keys():
            raise Malformed(f"annotations[{place}] has no `annotator` and `label`")
        yield _name(entry["annotator"]), entry["label"]


def _side_by_side(written: object) -> Iterator[tuple[str, object]]:
    if isinstance(written, dict):
        yield from ((_name(name), label) for name, label in written.items())
    elif isinstance(written, list):
        yield from ((str(place), label) for place, label in enumerate(written, start=1))
    else:
        raise Malformed(f"labels is {_kind(written)}, not a list and not by annotator")


def _name(value: object) -> str:
    name = str(value).strip() if isinstance(value, str | int) and not isinstance(value, bool) else ""
    if not name:
        raise Malformed(f"annotator is {_kind(value)}, not a name")
    return name


def _identity(row: Mapping[str, Any], number: int) -> str:
    value = row.get("item", row.get("id"))
    if value is None:
        content = {key: row[key] for key in CONTENT if row.get(key) is not None}
        if "annotator" not in row:
            return f"row {number}"
        if not content:
            raise Malformed("does not say what is labelled: it has no `item`, `id`, `prompt` or `text`")
        return str(content.get("text") or json.dumps(content, sort_keys=True, ensure_ascii=False))
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise Malformed(f"item is {_kind(value)}, not a name or number")
    return str(value)


def _keep_content(item: AnnotatedItem, row: Mapping[str, Any], number: int) -> None:
    for key in CONTENT:
        value = row.get(key)
        if value is None:
            continue
        if key in item.content and item.content[key] != value:
            raise Malformed(f"gives {item.id!r} another {key} than row {item.row}")
        if item.row != number or key not in item.content:
            item.content[key] = value


def _label(value: object) -> str | None:
    """Return a label as a text; None where there is none."""
    if value is None:
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        if math.isnan(value):
            return None  # how tables write an empty cell
        return str(int(value)) if value.is_integer() else repr(value)
    if isinstance(value, str):
        return value.strip() or None
    raise Malformed(f"a label is {_kind(value)}; an annotator gives an item one label")


def _kind(value: object) -> str:
    if value is None:
        return "null"
    kinds = {dict: "an object", list: "a list", bool: "true or false"}
    return kinds.get(type(value), repr(value)[:60])
