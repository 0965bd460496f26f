"""CSV and its relatives: a header, and a record for each row.

Owns what a record becomes: an object of the header's names. Invariant: a record that does not fit the
header is a fault of that row; no cell is moved, filled in or dropped in silence.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from functools import partial
from typing import BinaryIO

from train.dataset.containers.line import LONGEST_BYTES, RawRow, not_utf8
from train.dataset.records import Malformed

# A cell of these columns is JSON where it looks so: everywhere else a text stays a text.
_JSON_COLUMNS = frozenset((
    "messages", "conversations", "conversation", "tools", "functions", "preferred_output",
    "non_preferred_output", "chosen_messages", "rejected_messages", "history",
))  # fmt: skip
# Keys that a row need not have: where their cell is empty, it has not.
_MAY_LACK = frozenset({"system", "context", "input", "history", "tools", "functions", "label", "weight"})
_ANSWERED = frozenset({"completion", "messages", "conversations"})
_TRUTHS = {"true": True, "false": False}
_QUOTE = 'close the quote, and double a quote inside a cell ("")'


def table_rows(file: BinaryIO, delimiter: str) -> Iterator[RawRow]:
    """Yield a row for each record behind the header; empty records are passed over, as blank lines are.

    Raises: Malformed: the header names a column twice, or is no UTF-8.
    """
    csv.field_size_limit(LONGEST_BYTES)
    records = csv.reader(_texts(file), delimiter=delimiter, strict=True)
    header = _header(records)
    if header == ["sep=", ""]:
        header = _header(records)
    number = 0
    while True:
        try:
            record = next(records)
        except StopIteration:
            return
        except csv.Error as error:
            number += 1
            yield RawRow(number, b"", 0, _broken(error))
            continue
        if record:
            number += 1
            yield _row(number, header, record)


def _texts(file: BinaryIO) -> Iterator[str]:
    # What is no UTF-8 passes through, so that the row is told by its number.
    for line in iter(partial(file.readline, LONGEST_BYTES), b""):
        if len(line) == LONGEST_BYTES:
            raise Malformed(f"has a line of more than {LONGEST_BYTES >> 20} MiB", "D-CELLS", _QUOTE)
        yield line.decode("utf-8", "surrogateescape")


def _header(records: Iterator[list[str]]) -> list[str]:
    try:
        header = [cell.strip() for cell in next(filter(None, records), [])]
        _bytes(header).decode("utf-8")
    except csv.Error as error:
        raise _broken(error) from error
    except UnicodeDecodeError as error:
        raise not_utf8(_bytes(header), error) from error
    for name in header:
        if name and header.count(name) > 1:
            fact = f"the header names the column {name!r} twice"
            raise Malformed(fact, "D-CELLS", "give every column a name of its own")
    return header


def _row(number: int, header: Sequence[str], record: Sequence[str]) -> RawRow:
    data = _bytes(record)
    if len(record) != len(header):
        fact = f"has {len(record)} cells, and the header has {len(header)}"
        remedy = "quote a cell that holds the separator or a line end"
        return RawRow(number, data, len(data), Malformed(fact, "D-CELLS", remedy))
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        return RawRow(number, data, len(data), not_utf8(data, error))
    names = [name or f"column {at}" for at, name in enumerate(header, start=1)]
    # A column without a name is an index, or what a spreadsheet leaves behind: its empty cells say nothing.
    cells = {name: cell for name, cell, own in zip(names, record, header, strict=True) if cell or _says(own)}
    row = {name: _value(name, cell, header) for name, cell in cells.items()}
    return RawRow(number, json.dumps(row, ensure_ascii=False).encode(), len(data))


def _says(name: str) -> bool:
    """Tell whether an empty cell of a column is an empty text, rather than nothing."""
    return bool(name) and name not in _MAY_LACK


def _value(name: str, cell: str, header: Sequence[str]) -> object:
    if name in _JSON_COLUMNS and cell.lstrip()[:1] in {"[", "{"}:
        try:
            return json.loads(cell)
        except (ValueError, RecursionError):
            return cell
    if name == "label" and _ANSWERED.intersection(header):
        return _TRUTHS.get(cell.strip().lower(), cell)
    return cell


def _bytes(record: Sequence[str]) -> bytes:
    return ",".join(record).encode("utf-8", "surrogateescape")


def _broken(error: csv.Error) -> Malformed:
    if "unexpected end" in str(error):
        return Malformed("opens a quote that nothing closes", "D-CELLS", _QUOTE)
    if "field larger" in str(error):
        fact = f"has a cell of more than {LONGEST_BYTES >> 20} MiB: a quote that nothing closes?"
        return Malformed(fact, "D-CELLS", _QUOTE)
    return Malformed(f"is not a record of CSV ({error})", "D-CELLS", _QUOTE)
