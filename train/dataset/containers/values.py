"""JSON that is not one row a line: an array, objects over several lines, an object that holds the rows.

Owns the reading of values from a stream, with a buffer that holds one value and one chunk.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from typing import BinaryIO

from train.dataset.containers.line import LONGEST_BYTES, RawRow, too_long
from train.dataset.records import Malformed

_CHUNK_BYTES = 1 << 20
_BLANK = " \t\r\n\x1e"
# A literal or an escape that the end of the buffer cuts.
_CUT_CHARACTERS = 16
_SPLIT_REMEDY = "name the one to read with `split`"
_ROW_LISTS = frozenset(
    {"data", "rows", "examples", "items", "records", "instances", "samples", "train", "validation", "test"}
)
_ROW_KEYS = frozenset((
    "messages", "conversations", "conversation", "prompt", "completion", "instruction", "input",
    "output", "response", "question", "query", "answer", "text", "chosen", "rejected",
))  # fmt: skip
_OF_A_ROW = frozenset((
    "messages", "tools", "functions", "tool_calls", "documents", "history", "images", "answers",
    "choices", "preferred_output", "non_preferred_output", "chosen", "rejected",
))  # fmt: skip


class Cursor:
    """A place in a stream of JSON text."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        # What is no UTF-8 passes through, so that the row is told by its number.
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._text, self._at, self._ended = "", 0, False

    def next(self) -> str:
        """Return the next character that is not blank, without taking it; empty at the end."""
        while True:
            while self._at < len(self._text) and self._text[self._at] in _BLANK:
                self._at += 1
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return ""

    def take(self, character: str) -> bool:
        """Take `character` where it comes next, and tell whether it did."""
        found = self.next() == character
        self._at += found
        return found

    def value(self) -> bytes:
        """Take the next value and return its text.

        Raises: Malformed: it is none; what follows cannot be read either.
        """
        self.next()
        while True:
            try:
                _, end = _decoder.raw_decode(self._text, self._at)
            except RecursionError as error:
                raise Malformed("is not JSON: nested too deeply", "D-JSON") from error
            except json.JSONDecodeError as error:
                cut = error.msg.startswith("Unterminated") or error.pos + _CUT_CHARACTERS > len(self._text)
                if not cut or not self._more():
                    raise self._fault(error) from error
            else:
                if end < len(self._text) or not self._more():
                    found = self._text[self._at : end]
                    self._at = end
                    return found.encode("utf-8", "surrogateescape")

    def rest(self) -> bytes:
        """Return what was read and not taken, or its beginning."""
        return self._text[self._at : self._at + _CHUNK_BYTES].encode("utf-8", "surrogateescape")

    def _more(self) -> bool:
        if self._ended or len(self._text) - self._at > LONGEST_BYTES:
            return False
        # As much again as there is: a long value is tried from its beginning each time.
        chunk = self._file.read(max(_CHUNK_BYTES, len(self._text) - self._at))
        self._ended = not chunk
        self._text, self._at = self._text[self._at :] + self._decoder.decode(chunk, final=not chunk), 0
        return not self._ended

    def _fault(self, error: json.JSONDecodeError) -> Malformed:
        if not self._ended and len(self._text) - self._at > LONGEST_BYTES:
            fault = too_long(0, 0).fault
            assert fault is not None
            return fault
        start = self._text.rfind("\n", 0, error.pos)
        near = self._text[max(start + 1, error.pos - 20) : error.pos + 20].strip()
        if self._ended and (error.msg.startswith("Unterminated") or error.pos >= len(self._text.rstrip())):
            return Malformed(f"is not JSON: {error.msg}, and the file ends there", "D-TORN")
        lines = self._text.count("\n", self._at, error.pos) + 1
        return Malformed(
            f"is not JSON: {error.msg}, in line {lines} of the row, near {near!r}; nothing behind it is read",
            "D-JSON",
        )


def array_rows(file: BinaryIO) -> Iterator[RawRow]:
    """Yield the items of one JSON array."""
    cursor = Cursor(file)
    yield from _numbered(cursor, _array(cursor))


def value_rows(file: BinaryIO) -> Iterator[RawRow]:
    """Yield JSON values that follow each other, whatever stands in a line."""
    cursor = Cursor(file)
    yield from _numbered(cursor, _values(cursor))


def list_rows(file: BinaryIO, key: str, *, named: bool) -> Iterator[RawRow]:
    """Yield the items of the list under `key` of the one object in `file`.

    Unless the key was `named` by whoever reads, another list of rows behind it is a fault: nothing is left
    out in silence.
    """
    cursor = Cursor(file)
    yield from _numbered(cursor, _listed(cursor, key, named=named))


def _numbered(cursor: Cursor, rows: Iterator[bytes]) -> Iterator[RawRow]:
    number = 0
    try:
        for number, data in enumerate(rows, start=1):
            yield RawRow(number, data, len(data))
    except Malformed as fault:
        yield RawRow(number + 1, cursor.rest(), 0, fault)


def _array(cursor: Cursor) -> Iterator[bytes]:
    cursor.take("[")
    yield from _items(cursor)
    if cursor.next():
        raise Malformed("something follows the array", "D-JSON")


def _values(cursor: Cursor) -> Iterator[bytes]:
    while cursor.next():
        yield cursor.value()
        cursor.take(",")


def _listed(cursor: Cursor, key: str, *, named: bool) -> Iterator[bytes]:
    cursor.take("{")
    found = False
    while cursor.next() not in {"}", ""}:
        name = _key(cursor.value())
        cursor.take(":")
        if name == key and not found and cursor.take("["):
            found = True
            yield from _items(cursor)
        elif _is_rows(cursor.value()) and found and not named and name not in _OF_A_ROW:
            raise Malformed(f"holds another list of rows, {name!r}", "D-CONTAINER", _SPLIT_REMEDY)
        cursor.take(",")
    if not cursor.take("}"):
        raise Malformed("is not JSON: the object around the rows does not end", "D-TORN")
    if cursor.next():
        raise Malformed("something follows the object around the rows", "D-JSON")


def _items(cursor: Cursor) -> Iterator[bytes]:
    """Yield the items up to the closing bracket, and take that."""
    while cursor.next() not in {"]", ""}:
        yield cursor.value()
        cursor.take(",")
    if not cursor.take("]"):
        raise Malformed("is not JSON: the list does not end", "D-TORN")


def _key(written: bytes) -> object:
    try:
        return json.loads(written)
    except ValueError as error:
        raise Malformed(f"is not JSON: {error}", "D-JSON") from error


def find_list(head: str, wanted: str | None) -> str | None:
    """Return the key of the list that holds the rows, where `head` begins with an object around one.

    None where the object is a row itself. With `wanted`, it is that key or none.

    Raises: Malformed: several lists could be meant.
    """
    lists, keys = _lists_of(head)
    if wanted is not None:
        return wanted if wanted in lists else None
    if keys & _ROW_KEYS:
        return None
    likely = [key for key in lists if key not in _OF_A_ROW]
    known = [key for key in likely if key in _ROW_LISTS]
    if len(known or likely) > 1:
        raise Malformed(f"holds the lists {', '.join(known or likely)}", "D-CONTAINER", _SPLIT_REMEDY)
    return next(iter(known or likely), None)


def _lists_of(head: str) -> tuple[list[str], set[str]]:
    """Return the keys of the first object in `head` that lists of objects (no turns) have, and all keys."""
    lists: list[str] = []
    keys: set[str] = set()
    at = head.find("{") + 1
    try:
        while head[_skip(head, at, ",")] != "}":
            key, at = _decoder.raw_decode(head, _skip(head, at, ","))
            at = _skip(head, at, ":")
            keys.add(key)
            if head[at] == "[" and _begins_rows(head, at + 1):
                lists.append(key)
            _, at = _decoder.raw_decode(head, at)
    except (ValueError, IndexError, RecursionError, TypeError):
        return lists, keys
    return lists, keys


def _begins_rows(head: str, at: int) -> bool:
    at = _skip(head, at)
    if head[at : at + 1] != "{":
        return False
    try:
        first, _ = _decoder.raw_decode(head, at)
    except (ValueError, RecursionError):
        return True
    return not first.keys() & {"role", "from"}


def _is_rows(written: bytes) -> bool:
    return written[:1] == b"[" and _begins_rows(written.decode("utf-8", "replace"), 1)


def _skip(head: str, at: int, also: str = "") -> int:
    while at < len(head) and head[at] in _BLANK + also:
        at += 1
    return at


# Values are found here, not read: an integer of any length is one.
_decoder = json.JSONDecoder(parse_int=float)
