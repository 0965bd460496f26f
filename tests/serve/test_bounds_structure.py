"""The shape of a body, told from its bytes alone."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

import pytest

from serve.bounds import structure
from serve.bounds.structure import PIECE_BYTES, check_encoding, check_structure, check_text
from serve.errors import BadBody, EncodedBody, TooComplex


def documents(count: int) -> Iterator[Any]:
    """Yield documents whose strings are full of what means something outside of strings."""
    chance = random.Random(7)

    def text() -> str:
        return "".join(chance.choices('"\\[]{},:a1é\n', k=chance.randrange(12)))

    def value(levels: int) -> Any:
        kind = chance.randrange(5 if levels else 3)
        if kind == 3:
            return [value(levels - 1) for _ in range(chance.randrange(4))]
        if kind == 4:
            return {text(): value(levels - 1) for _ in range(chance.randrange(4))}
        return (None, chance.randrange(-(10**9), 10**9), text())[kind]

    return (value(6) for _ in range(count))


def depth_of(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(depth_of, inner), default=0)


def passes(body: bytes, nesting: int = 10**6, values: int = 10**6) -> bool:
    try:
        check_structure(body, nesting, values)
    except TooComplex:
        return False
    return True


@pytest.mark.parametrize("escaped", [True, False])
@pytest.mark.parametrize("piece", [2, 3, 7, PIECE_BYTES])
def test_the_depth_is_the_documents_own_whatever_its_strings_hold_and_its_pieces_are(
    monkeypatch: pytest.MonkeyPatch, escaped: bool, piece: int
) -> None:
    monkeypatch.setattr(structure, "PIECE_BYTES", piece)
    for number, value in enumerate(documents(300)):
        body = json.dumps(value, ensure_ascii=escaped, indent=number % 2 or None).encode()
        depth = depth_of(value)
        assert passes(body, nesting=max(depth, 1)), body
        assert depth < 2 or not passes(body, nesting=depth - 1), body


@pytest.mark.parametrize("depth", [64, 65, 999, 1_000, 100_000, 3 * PIECE_BYTES])
def test_deep_nesting_is_refused_without_being_followed(depth: int) -> None:
    body = b'{"x":' + b"[" * (depth - 1) + b"]" * (depth - 1) + b"}"
    assert passes(body, nesting=64) is (depth == 64)
    assert passes(b'{"x":"' + b"[" * depth + b'"}', nesting=64)


@pytest.mark.parametrize(
    "body",
    [
        b"{" + b",".join(b'"%d":1' % n for n in range(60_000)) + b"}",
        b'{"x":[' + b"1," * 110_000 + b"1]}",
        b'{"x":[' + b"[]," * 60_000 + b"[]]}",
        b'{"x":[' + b'"a",' * 110_000 + b'"a"]}',
        b'{"x":' + b'""' * 110_000,  # no JSON at all
    ],
)
def test_values_beyond_the_limit_are_refused_whatever_they_are(body: bytes) -> None:
    with pytest.raises(TooComplex, match="more than 100000"):
        check_structure(body, 64, 100_000)


def test_a_large_body_of_few_values_passes() -> None:
    picture = b'{"image_url":{"url":"data:image/png;base64,' + b"iVBORw0KGgo+/=" * 300_000 + b'"}}'
    text = json.dumps({"content": 'He said: "[{,}]", \\ and left.\n' * 50_000}).encode()
    backslashes = json.dumps({"content": "\\" * 700_001}).encode()
    for body in (picture, text, backslashes):
        assert len(body) > 4 * PIECE_BYTES
        check_structure(body, 4, 10)


@pytest.mark.parametrize("digits", [65, 4_301, 2_000_000])
def test_a_number_that_no_parser_likes_is_refused(digits: int) -> None:
    for text in (b'{"x":%s}', b'{"x":-0.%s}', b'{"x":[1,%s]}'):
        with pytest.raises(BadBody, match="digits"):
            check_structure(text % (b"9" * digits), 64, 1_000)
    check_structure(b'{"x":"%s","y":%s}' % (b"9" * digits, b"9" * 64), 64, 1_000)


@pytest.mark.parametrize(
    "body", [b'{"a":"\xff"}', b'{"a":"\xed\xa0\x80"}', b'{"a":"\xc0\x80"}', b"\xff\xfe{"]
)
def test_what_is_no_utf_8_is_refused(body: bytes) -> None:
    with pytest.raises(BadBody, match="is not UTF-8"):
        check_text(body)
    check_text('{"a":"é😀"}'.encode())


def test_a_compressed_body_is_refused_with_the_reason() -> None:
    for value in (None, b"", b"identity", b" Identity "):
        check_encoding(value)
    with pytest.raises(EncodedBody, match="'gzip' is not unpacked here") as caught:
        check_encoding(b"gzip")
    assert caught.value.http_status == 415
