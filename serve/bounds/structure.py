"""The shape of a JSON body, from its bytes: how deep it nests and how many values it has (pure).

Nothing is decoded. Strings are cut out piece by piece with the fast functions of `bytes`, about a second
for a gigabyte, so that what is left is brackets, commas, colons and numbers. A piece is short, so in a
thread of its own the interpreter is never held for longer than a fraction of a millisecond. It does not
say whether the body is JSON; on what is none it is as fast.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from serve.errors import BadBody, EncodedBody, TooComplex

PIECE_BYTES = 256 * 1024

_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
# A whole pair, half of one (group 1), or any other escape, so that the second of two backslashes begins none.
_ESCAPE = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(\\u[dD][89a-fA-F][0-9a-fA-F]{2})|\\."
)

LONGEST_NUMBER = 64
"""Digits in a row; a 64-bit integer has 20, and Python's own parser fails beyond 4,300."""

_DIGITS = bytes.maketrans(bytes(range(256)), bytes(48 if 48 <= byte < 58 else 32 for byte in range(256)))
_TOO_LONG = b"0" * (LONGEST_NUMBER + 1)
_NO_BRACKETS = bytes(byte for byte in range(256) if byte not in b"[]{}")


def check_text(body: bytes) -> None:
    """Pass when the body is UTF-8.

    Raises: BadBody: not UTF-8, a byte order mark included.
    """
    if body.isascii():
        return
    try:
        body.decode()
    except UnicodeDecodeError as error:
        fact = f"is not UTF-8 ({error.reason} at byte {error.start})"
        raise BadBody("body", fact, "send JSON as UTF-8") from error


def check_surrogates(body: bytes) -> None:
    """Pass when no escape of the body, which need not be JSON, is half of a surrogate pair.

    Such a string is no text: no file, no log and no answer can hold it. Raises: BadBody.
    """
    if _SURROGATE.search(body) and any(match[1] for match in _ESCAPE.finditer(body)):
        raise BadBody("body", "holds half of a surrogate pair, which is no text", "send whole characters")


def check_encoding(value: bytes | None) -> None:
    """Pass for a body that came as it is; `value` is the request's Content-Encoding.

    Raises: EncodedBody: its size would be known only after it was unpacked.
    """
    if value is not None and value.strip().lower() not in {b"", b"identity"}:
        shown = value[:40].decode("latin-1")
        raise EncodedBody("content-encoding", f"{shown!r} is not unpacked here", "send the body as it is")


def check_structure(body: bytes, max_nesting: int, max_values: int) -> None:
    """Pass when the body nests no deeper, and has no more values, than allowed.

    Raises: TooComplex. BadBody: a number of more than `LONGEST_NUMBER` digits.
    """
    depth = values = 0
    for outside in _outsides(body, 2 * max_values):
        opened = outside.count(b"[") + outside.count(b"{")
        values += opened + outside.count(b",") + outside.count(b":")
        if values > max_values:
            raise _too_many(max_values)
        if depth + opened <= max_nesting:
            depth += opened - outside.count(b"]") - outside.count(b"}")
        else:
            depth = _follow(outside, depth, max_nesting)
        if _TOO_LONG in outside.translate(_DIGITS):
            fact = f"holds a number of more than {LONGEST_NUMBER} digits"
            raise BadBody("body", fact, "send it as a string, or shorter")


def _outsides(body: bytes, max_quotes: int) -> Iterator[bytes]:
    """Yield what is outside of strings, piece by piece."""
    begin, quotes, inside = 0, 0, False
    while begin < len(body):
        piece = body[begin : begin + PIECE_BYTES]
        begin += len(piece)
        if begin < len(body) and (len(piece) - len(piece.rstrip(b"\\"))) % 2:
            piece, begin = piece[:-1], begin - 1  # it ended within an escape
        if b"\\" in piece:
            piece = piece.replace(b"\\\\", b"").replace(b'\\"', b"")
        quotes += piece.count(b'"')
        if quotes > max_quotes:
            raise _too_many(max_quotes // 2)
        parts = piece.split(b'"')
        yield b"".join(parts[1::2] if inside else parts[::2])
        inside ^= len(parts) % 2 == 0


def _follow(outside: bytes, depth: int, most: int) -> int:
    """Return the depth at the end of a piece, bracket by bracket."""
    for bracket in outside.translate(None, _NO_BRACKETS):
        if bracket in b"[{":
            depth += 1
            if depth > most:
                fact = f"nests more than {most} objects and arrays"
                raise TooComplex("body", fact, "send a flatter one, or raise limits.max_nesting")
        else:
            depth -= 1
    return depth


def _too_many(most: int) -> TooComplex:
    fact = f"has more than {most} keys, values and brackets"
    return TooComplex("body", fact, "send less, or raise limits.max_values")
