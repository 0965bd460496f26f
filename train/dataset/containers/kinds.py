"""Which container the bytes are: by what they begin with first, by the file's name only where that is open.

Owns the detection, and the words for containers that are not read. Invariant: a file whose content is plain
to see is read as that, whatever its name says, and a remark tells it.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from train.dataset.containers.place import PACKED_SUFFIXES
from train.dataset.containers.streams import ContainerStream
from train.dataset.records import Malformed

TEXT_SUFFIXES = frozenset({".txt", ".md"})
TABLE_SUFFIXES = {".csv": ",", ".tsv": "\t", ".tab": "\t", ".psv": "|"}
_JSON_SUFFIXES = frozenset({".json", ".jsonl", ".ndjson", ".jsonlines"})
_DELIMITERS = (",", "\t", ";", "|")
_SNIFFED_RECORDS = 20
# What a spreadsheet writes above the header.
_SEPARATOR = re.compile(r"sep=([,;|\t])\r?\n")
_LONGEST_NAME = 64
_UNPACK = "unpack it and name the file inside"
_FOREIGN = (
    (b"PK\x03\x04", "a ZIP archive or an Excel workbook", f"{_UNPACK}, or save the sheet as CSV"),
    (b"7z\xbc\xaf", "a 7-Zip archive", _UNPACK),
    (b"Rar!", "a RAR archive", _UNPACK),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook", "save the sheet as CSV"),
    (b"SQLite format 3", "an SQLite database", "export the table as CSV or JSON Lines"),
    (b"\x89HDF", "an HDF5 file", "write it as Parquet"),
    (b"ORC", "an ORC file", "write it as Parquet"),
    (b"Obj\x01", "an Avro file", "write it as Parquet"),
    (b"FEA1", "a Feather file of version 1", "write it as Parquet"),
    (b"PARE", "an encrypted Parquet file", "write it without encryption"),
    *(
        (bytes((0x80, version)), "a pickle, which can run code", "write it as JSON Lines")
        for version in (2, 3, 4, 5)
    ),
    (b"%PDF", "a PDF", "save its text as .txt"),
    (b"version https://git-lfs", "a pointer of Git LFS, not the file itself", "fetch the file: git lfs pull"),
)
_PAGES = (b"<!doctype html", b"<html")


class ContainerKind(Enum):
    """The containers that are read."""

    LINES = "JSON Lines"
    ARRAY = "a JSON array"
    VALUES = "JSON objects over several lines"
    TABLE = "CSV"
    TEXT = "plain text"
    PARQUET = "Parquet"
    ARROW_FILE = "an Arrow file"
    ARROW_STREAM = "an Arrow stream"


@dataclass(frozen=True, slots=True)
class Container:
    """What a stream holds; `delimiter` parts the cells of a table."""

    kind: ContainerKind
    delimiter: str = ""
    remarks: tuple[tuple[str, str], ...] = ()


def find_kind(path: Path, stream: ContainerStream) -> Container:
    """Return the container of `stream`, the file at `path`.

    Raises: Malformed: one that is not read; it is named.
    """
    head, suffix = stream.head, suffix_of(path)
    if kind := _columnar(head):
        return Container(kind)
    _refuse_foreign(head)
    if suffix in TEXT_SUFFIXES:
        return Container(ContainerKind.TEXT)
    found = _of_text(head.decode("utf-8", "replace"), suffix, whole=stream.whole)
    if found.kind is ContainerKind.LINES and b"\0" in head[:4096]:
        fact = f"is binary, of a kind that is not read (it begins with {head[:4]!r})"
        raise Malformed(fact, "D-CONTAINER", "write it as JSON Lines or Parquet")
    told = _surprise(found, suffix) if b"\n" in head.strip() else ""
    return Container(found.kind, found.delimiter, (("D-READ-AS", told),) if told else ())


def suffix_of(path: Path) -> str:
    """Return the ending of the name that tells the container, in small letters: `.csv` of `a.CSV.gz`."""
    suffixes = [one.lower() for one in path.suffixes]
    while suffixes and suffixes[-1] in PACKED_SUFFIXES:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def _columnar(head: bytes) -> ContainerKind | None:
    if head.startswith(b"PAR1"):
        return ContainerKind.PARQUET
    if head.startswith(b"ARROW1\0\0"):
        return ContainerKind.ARROW_FILE
    return ContainerKind.ARROW_STREAM if head.startswith(b"\xff\xff\xff\xff") and len(head) > 8 else None


def _refuse_foreign(head: bytes) -> None:
    for magic, name, remedy in _FOREIGN:
        if head.startswith(magic):
            raise Malformed(f"is {name}", "D-CONTAINER", remedy)
    if head[257:262] == b"ustar":
        raise Malformed("is a tar archive", "D-CONTAINER", _UNPACK)
    if head[:64].lstrip().lower().startswith(_PAGES):
        raise Malformed("is a web page", "D-CONTAINER", "download the file itself, not the page about it")


def _of_text(head: str, suffix: str, *, whole: bool) -> Container:
    start = head.lstrip()
    if start.startswith("["):
        return Container(ContainerKind.LINES if _first_line_is_list(start) else ContainerKind.ARRAY)
    if start.startswith("{"):
        return Container(ContainerKind.VALUES if _spans_lines(start, whole=whole) else ContainerKind.LINES)
    delimiter = find_delimiter(head, named=TABLE_SUFFIXES.get(suffix), whole=whole)
    return Container(ContainerKind.TABLE, delimiter) if delimiter else Container(ContainerKind.LINES)


def _first_line_is_list(start: str) -> bool:
    # `[1]` in a line of its own is a malformed row of JSON Lines, not the start of an array.
    first, _, rest = start.partition("\n")
    return bool(rest.strip()) and _is_json(first, list)


def _spans_lines(start: str, *, whole: bool) -> bool:
    """Tell whether an object goes on over several lines, rather than the first line being a bad row."""
    first, newline, rest = start.partition("\n")
    if not newline:
        # One long line: an object of its own, which may hold all rows in a list.
        return not whole or _is_json(first, dict)
    if _is_json(first, dict):
        return not rest.strip()
    if _decodes(start):
        return True
    later = rest.split("\n", 10)[:10]
    if any(line.startswith("{") and _is_json(line, dict) for line in later):
        return False
    return _breaks_at_its_end(first) and bool(rest.strip())


def _is_json(text: str, kind: type) -> bool:
    try:
        return isinstance(json.loads(text), kind)
    except (ValueError, RecursionError):
        return False


def _decodes(text: str) -> bool:
    try:
        json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return False
    return True


def _breaks_at_its_end(line: str) -> bool:
    try:
        json.loads(line)
    except json.JSONDecodeError as error:
        return error.pos >= len(line.rstrip())
    except RecursionError:
        return False
    return False


def find_delimiter(head: str, *, named: str | None, whole: bool) -> str:
    """Return what parts the cells of a table; empty where `head` is none.

    `named` is the separator that the file's name stands for: then the first line alone may decide, and a
    table of one column is one.
    """
    if (told := _SEPARATOR.match(head)) is not None:
        return told[1]
    counts = {one: list(_cell_counts(head, one, whole=whole)) for one in _DELIMITERS}
    even = [one for one, found in counts.items() if len(found) > 1 and found[0] > 1 and len(set(found)) == 1]
    best = max(even, key=lambda one: counts[one][0], default="")
    if named is not None:
        header = max(_DELIMITERS, key=lambda one: (counts[one][:1] or [0], one == named))
        return best or (header if counts[header][:1] > [1] else named)
    return best if best and _are_names(next(csv.reader(head.splitlines(), delimiter=best))) else ""


def _cell_counts(head: str, delimiter: str, *, whole: bool) -> Iterator[int]:
    lines = head.splitlines(keepends=True)[: 50 * _SNIFFED_RECORDS]
    if not whole and len(lines) < 50 * _SNIFFED_RECORDS:
        lines = lines[:-1]
    try:
        records = csv.reader(lines, delimiter=delimiter)
        yield from (len(one) for one, _ in zip(filter(None, records), range(_SNIFFED_RECORDS), strict=False))
    except csv.Error:
        return


def _are_names(header: list[str]) -> bool:
    cells = [cell.strip() for cell in header]
    likely = all(cell and len(cell) <= _LONGEST_NAME and cell[0] not in "{[<\"'" for cell in cells)
    return likely and len(set(cells)) == len(cells)


def _surprise(found: Container, suffix: str) -> str:
    """Return what there is to say where a file holds something else than its name promises."""
    table = suffix in TABLE_SUFFIXES
    if found.kind is ContainerKind.TABLE and not table and suffix:
        shown = {"\t": "tabs", ",": "commas"}.get(found.delimiter, f"`{found.delimiter}`")
        return f"holds CSV, its cells parted by {shown}, under the name {suffix}, and is read as that"
    if table and found.kind is not ContainerKind.TABLE:
        return f"holds {found.kind.value} under the name {suffix}, and is read as that"
    if found.kind in {ContainerKind.VALUES, ContainerKind.ARRAY} and suffix in _JSON_SUFFIXES - {".json"}:
        return f"holds {found.kind.value}, not a row in each line, and is read as that"
    return ""
