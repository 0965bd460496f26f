"""JSONL as it is checked at upload: every line is a JSON object, and the first that is none is named.

Reads line by line and gives way between them, so a file of any size costs little memory and holds up nobody.
What the rows must hold is the business of who uses the file.
"""

from __future__ import annotations

import codecs
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec

from registry.storage import disk
from serve.openai.errors import RequestRefused

MAX_LINE_BYTES = 32 * 1024**2
"""Longest line, as long as a request's body may be by default."""

_SHOWN_CHARACTERS = 40
_PIECE_BYTES = 1024 * 1024
_object = msgspec.json.Decoder(dict[str, msgspec.Raw])


def check_rows(path: Path) -> None:
    """Pass when every line of the file at `path` is a JSON object; blocks.

    Raises: RequestRefused: names the first line that is none; StorageFailed.
    """
    found = False
    with disk.explained(path), disk.open_plain(path) as file:
        for number, line in lines(file):
            _check(number, line)
            found = True
    if not found:
        raise RequestRefused("File is empty.", param="file")


def lines(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Yield the lines that are not blank with their numbers, from 1 on; none longer than `MAX_LINE_BYTES`.

    A byte order mark at the beginning, which Azure asks for, is left out. A line that is longer is cut, so
    that it is no JSON. Between pieces of a megabyte others get their turn.
    """
    number, read = 0, 0
    while line := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        read += len(line)
        if number == 1:
            line = line.removeprefix(codecs.BOM_UTF8)
        if read >= _PIECE_BYTES:
            read = 0
            time.sleep(0)  # lets go of the interpreter: requests are answered meanwhile
        if line.strip():
            yield number, line
        if len(line) > MAX_LINE_BYTES and not line.endswith(b"\n"):
            return


def _check(number: int, line: bytes) -> None:
    if len(line) > MAX_LINE_BYTES:
        raise RequestRefused(f"Line {number} is longer than {MAX_LINE_BYTES} bytes.", param="file")
    try:
        _object.decode(line)
    except (msgspec.DecodeError, RecursionError) as error:
        shown = line[: 4 * _SHOWN_CHARACTERS].decode("utf-8", "replace").strip()[:_SHOWN_CHARACTERS]
        fact = (
            "Expected file to have JSONL format, where every line is a JSON dictionary. "
            f'Line {number} is not a dictionary (HINT: line starts with: "{shown}...").'
        )
        raise RequestRefused(fact) from error
    try:
        line.decode()
    except UnicodeDecodeError as error:
        fact = f"Line {number} is not UTF-8 ({error.reason} at byte {error.start} of it)."
        raise RequestRefused(f"Expected file to have JSONL format in UTF-8. {fact}") from error
