"""One row of a container, as bytes of JSON, whatever the container was.

Owns the parsing of a row and the words for what keeps it from being one. Invariant: `parse` gives a JSON
value or raises `Malformed`, for any bytes.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from train.dataset.containers.encodings import name_encoding
from train.dataset.records import Malformed

_PYTHON = "it is Python's notation: write rows with json.dumps"
LONGEST_BYTES = 1 << 26
"""A row that is longer is refused by its number: a container of a few bytes can unpack to any size."""


@dataclass(frozen=True, slots=True)
class Shard:
    """One file of several: rows are counted on through all of them, `offset` is what the others had."""

    file: Path
    offset: int


@dataclass(frozen=True, slots=True)
class RawRow:
    """One row as it lies in the container; `size` counts the stored bytes read for it, for progress.

    `fault` is what the container itself says against the row; `shard` is the file it came from where the
    rows lie in several.
    """

    number: int
    data: bytes
    size: int
    fault: Malformed | None = None
    shard: Shard | None = None

    def parse(self) -> Any:
        """Return the JSON value.

        Raises: Malformed: no UTF-8, no JSON, a torn line, a key given twice, or a fault of the container.
        """
        if self.fault is not None:
            raise self.fault
        try:
            written = self.data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise not_utf8(self.data, error) from error
        try:
            return _decoder.decode(written)
        except json.JSONDecodeError as error:
            remedy = _PYTHON if written.lstrip().startswith("{'") else ""
            raise Malformed(f"is not JSON: {error}", _rule(written, error), remedy) from error
        except RecursionError as error:
            raise Malformed("is not JSON: nested too deeply", "D-JSON") from error
        except Malformed:
            raise
        except ValueError as error:  # Python reads no integer of more digits than this
            fact = f"has a number of more than {sys.get_int_max_str_digits()} digits"
            raise Malformed(fact, "D-JSON", "write it as a text") from error


def not_utf8(data: bytes, error: UnicodeDecodeError) -> Malformed:
    """Return what is said of bytes that are no UTF-8, with the encoding that they are most likely in."""
    name, shown = name_encoding(data, error.start)
    fact = f"is not UTF-8: byte 0x{data[error.start]:02x} at position {error.start + 1}"
    if name is None:
        remedy = (
            "find out the encoding (`file -i FILE`) and convert it: iconv -f ENCODING -t UTF-8 FILE > NEW"
        )
        return Malformed(fact, "D-ENCODING", remedy)
    remedy = f"convert it: iconv -f {name} -t UTF-8 FILE > NEW"
    fact = f"{fact}; as Windows-1252 (Latin-1) it would read {shown!r}"
    return Malformed(fact, "D-ENCODING", remedy)


def too_long(number: int, size: int) -> RawRow:
    """Return the row that stands for one of more than `LONGEST_BYTES`."""
    fact = f"is longer than {LONGEST_BYTES >> 20} MiB"
    return RawRow(number, b"", size, Malformed(fact, "D-CONTAINER", "shorten it, or part the file into rows"))


def _rule(written: str, error: json.JSONDecodeError) -> str:
    # A writer that was stopped leaves an open text or an open bracket at the very end.
    torn = error.msg.startswith("Unterminated string") or error.pos >= len(written.rstrip())
    return "D-TORN" if torn else "D-JSON"


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise Malformed(f"has the key {twice!r} twice", "D-KEY-TWICE")
    return found


_decoder = json.JSONDecoder(object_pairs_hook=_unique)
