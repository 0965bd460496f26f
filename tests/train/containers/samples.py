"""The same rows in every container, and what reading gives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa

from train.dataset.records import Malformed
from train.dataset.sources import Where, read_lines

ROWS: list[dict[str, Any]] = [
    {"prompt": f"Où est le café {number}?", "completion": f"A line\nbreak, a comma and a «quote» {number}"}
    for number in range(5)
]
LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS)


def arrow_table() -> pa.Table:
    """Return `ROWS` as a table of Arrow."""
    return pa.Table.from_pylist(ROWS)


def read_all(where: Where) -> list[Any]:
    """Return every row at `where`, parsed."""
    return [line.parse() for line in read_lines(where)]


def outcomes(where: Where) -> list[tuple[int, str]]:
    """Return for every row at `where` its number and `ok`, or the rule that it breaks."""
    found = []
    for line in read_lines(where):
        try:
            line.parse()
            found.append((line.number, "ok"))
        except Malformed as error:
            found.append((line.number, error.rule))
    return found


def fault(where: Where) -> Malformed:
    """Return what is wrong with the last row at `where`."""
    *_, last = read_lines(where)
    try:
        last.parse()
    except Malformed as error:
        return error
    raise AssertionError("the last row can be read")


def written(folder: Path, name: str, data: str | bytes) -> Path:
    """Write a file and return its path."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path
