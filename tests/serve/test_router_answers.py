"""The text of an answer, of every protocol, streamed or not."""

from __future__ import annotations

import json

import pytest

from serve.protocol.paths import Dialect
from serve.router.endpoints.answers import read_text

CHAT = {"choices": [{"index": 0, "message": {"content": "Hi"}}, {"index": 1, "message": {"content": "Yo"}}]}
CALL = {"choices": [{"message": {"content": None, "tool_calls": [{"id": "1"}]}}]}
EMPTY = {"choices": [{"message": {"content": None}}]}


@pytest.mark.parametrize(
    ("dialect", "body", "text"),
    [
        (Dialect.OPENAI, CHAT, "Hi"),
        (Dialect.OPENAI, CALL, None),
        (Dialect.OPENAI, EMPTY, ""),
        (Dialect.OPENAI, {"choices": [{"index": 0, "text": " world"}]}, " world"),
        (Dialect.OPENAI, {"data": [{"embedding": [0.1]}]}, None),
        (Dialect.MESSAGES, {"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}, "ab"),
        (Dialect.MESSAGES, {"content": [{"type": "tool_use", "name": "f"}]}, None),
        (
            Dialect.RESPONSES,
            {
                "output": [
                    {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "hm"}]},
                    {"type": "message", "content": [{"type": "output_text", "text": "Hi"}]},
                ]
            },
            "Hi",
        ),
        (Dialect.RESPONSES, {"output": [{"type": "function_call", "name": "f"}]}, None),
        (Dialect.OPENAI, [1], None),
    ],
)
def test_an_answer_in_one_piece(dialect: Dialect, body: object, text: str | None) -> None:
    assert read_text([json.dumps(body).encode()], dialect, streamed=False) == text


def events(*values: object) -> list[bytes]:
    lines = [f"event: x\ndata: {json.dumps(value)}\n\n".encode() for value in values]
    whole = b"".join([*lines, b"data: [DONE]\n\n"])
    return [whole[:7], whole[7:50], whole[50:]]  # events are cut anywhere


@pytest.mark.parametrize(
    ("dialect", "stream", "text"),
    [
        (
            Dialect.OPENAI,
            [
                {"choices": [{"delta": {"role": "assistant", "content": ""}}]},
                {"choices": [{"delta": {"content": "H"}}]},
                {"choices": [{"index": 1, "delta": {"content": "other"}}]},
                {"choices": [{"delta": {"content": "i"}}]},
                {"choices": [{"delta": {}, "finish_reason": "stop"}]},
                {"choices": [], "usage": {}},
            ],
            "Hi",
        ),
        (Dialect.OPENAI, [{"choices": [{"text": "H"}]}, {"choices": [{"text": "i"}]}], "Hi"),
        (Dialect.OPENAI, [{"choices": [{"delta": {"tool_calls": [{"index": 0}]}}]}], None),
        (
            Dialect.MESSAGES,
            [
                {"type": "message_start", "message": {"content": []}},
                {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "Hi"}},
                {"type": "message_delta", "delta": {"stop_reason": "end_turn"}},
            ],
            "Hi",
        ),
        (
            Dialect.MESSAGES,
            [{"type": "content_block_delta", "delta": {"type": "input_json_delta", "partial_json": "{"}}],
            None,
        ),
        (
            Dialect.RESPONSES,
            [
                {"type": "response.created", "response": {"output": []}},
                {"type": "response.output_text.delta", "delta": "H"},
                {"type": "response.output_text.delta", "delta": "i"},
                {"type": "response.completed", "response": {"output": []}},
            ],
            "Hi",
        ),
        (Dialect.RESPONSES, [{"type": "response.function_call_arguments.delta", "delta": "{"}], None),
        (Dialect.OPENAI, [], None),
    ],
)
def test_an_answer_in_events(dialect: Dialect, stream: list[object], text: str | None) -> None:
    assert read_text(events(*stream), dialect, streamed=True) == text


@pytest.mark.parametrize(
    ("dialect", "body", "text"),
    [
        (Dialect.OPENAI, {"choices": [{"text": "Hi", "finish_reason": "length"}]}, "Hi"),
        (Dialect.OPENAI, {"choices": [{"message": {"content": "Hi"}, "finish_reason": "length"}]}, "Hi"),
        (Dialect.MESSAGES, {"content": [{"type": "text", "text": "Hi"}], "stop_reason": "max_tokens"}, "Hi"),
        (
            Dialect.MESSAGES,
            {"content": [{"type": "text", "text": "Hi"}], "stop_reason": "stop_sequence"},
            None,
        ),
        (
            Dialect.RESPONSES,
            {"status": "incomplete", "output": [{"content": [{"type": "output_text", "text": "Hi"}]}]},
            "Hi",
        ),
    ],
)
def test_an_answer_that_goes_on_to_its_limit_is_judged_and_one_that_a_stop_word_ended_is_not(
    dialect: Dialect, body: object, text: str | None
) -> None:
    assert read_text([json.dumps(body).encode()], dialect, streamed=False) == text


@pytest.mark.parametrize(
    ("dialect", "last", "text"),
    [
        (Dialect.OPENAI, {"choices": [{"delta": {}, "finish_reason": "length"}]}, "Hi"),
        (Dialect.MESSAGES, {"type": "message_delta", "delta": {"stop_reason": "max_tokens"}}, "Hi"),
        (Dialect.MESSAGES, {"type": "message_delta", "delta": {"stop_reason": "stop_sequence"}}, None),
        (Dialect.RESPONSES, {"type": "response.incomplete", "response": {"status": "incomplete"}}, "Hi"),
    ],
)
def test_so_it_is_with_a_stream(dialect: Dialect, last: object, text: str | None) -> None:
    pieces = {
        Dialect.OPENAI: {"choices": [{"delta": {"content": "Hi"}}]},
        Dialect.MESSAGES: {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "Hi"}},
        Dialect.RESPONSES: {"type": "response.output_text.delta", "delta": "Hi"},
    }
    assert read_text(events(pieces[dialect]), dialect, streamed=True) == "Hi"
    assert read_text(events(pieces[dialect], last), dialect, streamed=True) == text


def test_what_is_no_json_has_no_text() -> None:
    assert read_text([b"data: {oops\n\n"], Dialect.OPENAI, streamed=True) is None
    assert read_text([b"\xff"], Dialect.OPENAI, streamed=False) is None
