"""Equal values have equal bytes; what two readers could read differently is refused."""

from __future__ import annotations

import pytest

from registry.validation.canonical import canonical_json, parse_document, parse_json, readable_json


def test_key_order_does_not_reach_the_bytes() -> None:
    assert canonical_json({"b": 1, "a": [2, {"d": 3, "c": 4}]}) == b'{"a":[2,{"c":4,"d":3}],"b":1}'
    assert readable_json({"b": 1, "a": "ü"}) == '{\n  "a": "ü",\n  "b": 1\n}\n'.encode()


@pytest.mark.parametrize(
    ("data", "fact"),
    [
        (b'{"r": 8, "r": 64}', "'r' twice"),
        (b'{"a": {"x": 1, "x": 1}}', "'x' twice"),
        (b'{"lora_alpha": NaN}', "NaN"),
        (b'{"lora_alpha": -Infinity}', "Infinity"),
        (b"[" * 100_000, "deeply"),
        (b"\xff{}", "utf-8"),
        (b"", "Expecting value"),
        (b"{} {}", "Extra data"),
    ],
)
def test_ambiguous_or_broken_json_is_refused(data: bytes, fact: str) -> None:
    with pytest.raises(ValueError, match=fact):
        parse_json(data)


@pytest.mark.parametrize("data", [b'{"a": ' + b"[" * 64 + b"]" * 64 + b"}", rb'{"a": "\ud800"}'])
def test_a_document_that_could_not_be_written_again_is_refused(data: bytes) -> None:
    parse_json(data)
    with pytest.raises(ValueError, match=r"deeper than 64|surrogates"):
        parse_document(data)
