"""Turns as clients send them, put so that vLLM reads all of them; all else in `input` stays as it was."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from msgspec import Raw

from serve.errors import BadBody
from serve.responses.items import identity_of, join_items, mend, read_items, reference_of, shown_item

USER = {"role": "user", "content": "Hi"}


def mended(item: object) -> Any:
    return json.loads(mend([json.dumps(item).encode()])[0])


def test_a_string_is_one_turn_of_the_users_and_a_list_its_items() -> None:
    assert [json.loads(one) for one in read_items(Raw(b'"Hi \\u00e9"'))] == [
        {"type": "message", "role": "user", "content": "Hi é"}
    ]
    assert read_items(Raw(b'[{"a": 1.0}, 2]')) == [b'{"a": 1.0}', b"2"]
    assert bytes(join_items([b"1", b"2"])) == b"[1,2]"


@pytest.mark.parametrize("raw", [b"3", b"null", b'{"role": "user"}', b"true"])
def test_an_input_of_another_kind_is_refused_by_name(raw: bytes) -> None:
    with pytest.raises(BadBody) as caught:
        read_items(Raw(raw))
    assert caught.value.param == "input"


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ([{"type": "output_text", "text": "Hello"}], "Hello"),
        ([{"type": "output_text", "text": "one "}, {"type": "output_text", "text": "two"}], "one two"),
        ([{"type": "output_text", "text": "Hello", "annotations": [], "logprobs": None}], "Hello"),
        ([{"type": "refusal", "refusal": "No"}], "No"),
    ],
)
@pytest.mark.parametrize("more", [{}, {"type": "message", "id": "msg_1", "status": "completed"}])
def test_an_assistants_turn_of_parts_becomes_one_text(
    content: list[dict[str, Any]], text: str, more: dict[str, str]
) -> None:
    # Vercel's SDK and Codex send it without type and id.
    assert mended({"role": "assistant", "content": content, **more}) == {
        "type": "message", "role": "assistant", "content": text,
    }  # fmt: skip


@pytest.mark.parametrize(
    "item",
    [
        USER,
        {"role": "user", "content": [{"type": "input_text", "text": "output_text"}]},
        {"role": "assistant", "content": "plain"},
        {"role": "assistant", "content": [{"type": "output_text", "text": 3}]},
        {"role": "assistant", "content": [{"type": "output_text", "text": "a"}, {"type": "other"}]},
        {"type": "function_call", "name": "f", "call_id": "c", "arguments": "{}"},
        {"type": "reasoning", "summary": []},
        "output_text",
    ],
)
def test_every_other_item_keeps_its_bytes(item: object) -> None:
    text = json.dumps(item).encode()
    assert mend([text]) == [text]


def test_a_turn_that_is_to_be_gone_on_with_keeps_its_parts_and_gets_its_type() -> None:
    parts = [{"type": "output_text", "text": "Once"}]
    unfinished = {"role": "assistant", "status": "incomplete", "content": parts}
    assert mended(unfinished) == {"type": "message", **unfinished}


def test_a_reference_is_known_by_its_type() -> None:
    assert reference_of(b'{"type":"item_reference","id":"msg_1"}') == "msg_1"
    assert reference_of(b'{"role":"user","content":"item_reference"}') is None
    assert reference_of(b'"item_reference"') is None


def test_an_item_is_shown_with_a_type_an_id_and_parts() -> None:
    shown = json.loads(msgspec.json.encode(shown_item(json.dumps(USER).encode(), "item_0")))
    assert shown == {
        "id": "item_0", "type": "message", "role": "user", "content": [{"type": "input_text", "text": "Hi"}],
    }  # fmt: skip
    own = {"id": "msg_1", "type": "message", "role": "assistant", "content": [{"type": "output_text"}]}
    again = shown_item(json.dumps(own).encode(), str(own["id"]))
    assert json.loads(msgspec.json.encode(again)) == own
    odd = b'{"role":"user","content":"x","id":"a","n":1e999}'
    assert (identity_of(odd), b'"n":1e999' in msgspec.json.encode(shown_item(odd, "a"))) == ("a", True)
