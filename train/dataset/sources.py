"""Files of rows, read one row at a time.

Owns the containers: JSON Lines, a JSON array, plain text (a document per paragraph). Invariants: memory
does not grow with the file; every line that is not blank comes out, as bytes or as a row, with its number
from 1 (of an array: the number of the item).
"""

from __future__ import annotations

import codecs
import contextlib
import itertools
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from registry.errors import UsageError
from train.dataset.records import Malformed

BOM = b"\xef\xbb\xbf"
TEXT_SUFFIXES = frozenset({".txt", ".md"})
_CHUNK_BYTES = 1 << 20
_LONGEST_ITEM_CHARACTERS = 1 << 26
_SHORT_LINE_BYTES = 1000
_BETWEEN = " \t\r\n,"


@dataclass(frozen=True, slots=True)
class Line:
    """One row as it lies in the file; `size` counts all bytes read for it, for progress."""

    number: int
    data: bytes
    size: int

    def parse(self) -> Any:
        """Return the JSON value.

        Raises: Malformed: no UTF-8, no JSON, a torn line, or a key given twice.
        """
        try:
            written = self.data.decode("utf-8")
        except UnicodeDecodeError as error:
            fact = f"is not UTF-8: byte 0x{self.data[error.start]:02x} at position {error.start + 1}"
            raise Malformed(fact, "D-ENCODING") from error
        try:
            return _decoder.decode(written)
        except json.JSONDecodeError as error:
            raise Malformed(f"is not JSON: {error}", _rule(written, error)) from error
        except RecursionError as error:
            raise Malformed("is not JSON: nested too deeply", "D-JSON") from error


def read_lines(path: Path) -> Iterator[Line]:
    """Yield every row of the file at `path` that is not blank.

    Raises: UsageError: when the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            yield from _lines(path, file)
    except OSError as error:
        reason = error.strerror or str(error)
        remedy = "name a JSON Lines file in UTF-8"
        raise UsageError(str(path), f"cannot be read ({reason})", remedy) from error


def sample_lines(path: Path, count: int) -> Iterator[Line]:
    """Yield about `count` rows from all over the file, the same ones at every call; row numbers are 0.

    Raises: UsageError: when the file cannot be read.
    """
    size = path.stat().st_size if path.is_file() else 0
    if size < count * _SHORT_LINE_BYTES or not _is_plain(path):
        yield from itertools.islice(read_lines(path), count)
        return
    with path.open("rb") as file:
        for index in range(count):
            file.seek(index * size // count)
            file.readline()
            if data := file.readline().strip():
                yield Line(0, data, len(data))


def size_of(paths: Iterable[Path]) -> int:
    """Return the bytes of all files of `paths`; what is no file counts nothing."""
    return sum(path.stat().st_size for path in paths if path.is_file())


def has_bom(path: Path) -> bool:
    """Return True when the file begins with a byte order mark."""
    with contextlib.suppress(OSError), path.open("rb") as file:
        return file.read(3) == BOM
    return False


def _lines(path: Path, file: BinaryIO) -> Iterator[Line]:
    file.seek(3 if has_bom(path) else 0)
    if _is_plain(path):
        return _plain(file)
    return _paragraphs(file) if path.suffix.lower() in TEXT_SUFFIXES else _items(file)


def _is_plain(path: Path) -> bool:
    if path.suffix.lower() in TEXT_SUFFIXES:
        return False
    with path.open("rb") as file:
        head = file.read(4096).removeprefix(BOM).lstrip()
    return head[:1] != b"[" or _first_line_is_json(head)


def _plain(file: BinaryIO) -> Iterator[Line]:
    for number, line in enumerate(file, start=1):
        if line.strip():
            yield Line(number, line.rstrip(b"\r\n"), len(line))


def _paragraphs(file: BinaryIO) -> Iterator[Line]:
    start, held = 0, b""
    for number, line in enumerate(file, start=1):
        if line.strip():
            start, held = start or number, held + line
        elif held:
            yield _document(start, held)
            start, held = 0, b""
    if held:
        yield _document(start, held)


def _document(start: int, held: bytes) -> Line:
    try:
        data = json.dumps({"text": held.decode("utf-8").strip()}, ensure_ascii=False).encode()
    except UnicodeDecodeError:
        data = held
    return Line(start, data, len(held))


def _items(file: BinaryIO) -> Iterator[Line]:
    """Yield the items of one JSON array, with a buffer that holds one item and one chunk."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    buffer, position, number, ended = "", 0, 0, False
    while not ended and len(buffer) - position <= _LONGEST_ITEM_CHARACTERS:
        chunk = file.read(_CHUNK_BYTES)
        ended = not chunk
        buffer, position = buffer[position:] + decoder.decode(chunk, final=ended), 0
        if number == 0:
            number, position = 1, buffer.index("[") + 1
        while (found := _next_item(buffer, position)) is not None:
            start, position = found
            yield Line(number, buffer[start:position].encode(), position - start)
            number += 1
    rest = buffer[position:].strip(_BETWEEN)
    if rest != "]":
        yield Line(number, rest[:_CHUNK_BYTES].encode(), len(rest))


def _next_item(buffer: str, position: int) -> tuple[int, int] | None:
    while position < len(buffer) and buffer[position] in _BETWEEN:
        position += 1
    try:
        _, end = _plain_decoder.raw_decode(buffer, position)
    except json.JSONDecodeError:
        return None
    return position, end


def _first_line_is_json(head: bytes) -> bool:
    # `[1]` in a line of its own is a malformed row of JSON Lines, not the start of an array.
    with contextlib.suppress(ValueError):
        return isinstance(json.loads(head.split(b"\n", 1)[0]), list) and b"\n" in head.strip()
    return False


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
_plain_decoder = json.JSONDecoder()
