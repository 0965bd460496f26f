"""How an answer ended, by its bytes."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.outcomes import Outcome
from serve.protocol.paths import Dialect
from serve.router.streams import TokenUsage, has_delta, judge_status, judge_stream, read_usage

DONE = b"data: [DONE]\n\n"
CLOSED = {
    Dialect.OPENAI: DONE,
    Dialect.MESSAGES: b'event: message_stop\ndata: {"type":"message_stop"}\n\n',
    Dialect.RESPONSES: b'event: response.completed\ndata: {"type":"response.completed"}\n\n',
}
BROKEN = [
    (Dialect.OPENAI, b'data: {"error":{"message":"dead"}}\n\n' + DONE),
    (Dialect.MESSAGES, b'event: error\ndata: {"type":"error"}\n\n' + CLOSED[Dialect.MESSAGES]),
    (Dialect.RESPONSES, b"event: response.failed\ndata: {}\n\n"),
    (Dialect.RESPONSES, b"event: error\ndata: {}\n\n"),
]


@pytest.mark.parametrize("dialect", list(Dialect))
def test_a_stream_with_its_closing_event_is_ok_and_without_it_a_failure(dialect: Dialect) -> None:
    assert judge_stream(b"data: {}\n\n" + CLOSED[dialect], dialect) is Outcome.OK
    assert judge_stream(b"data: {}\n\n", dialect) is Outcome.ENGINE_ERROR
    assert judge_stream(b"", dialect) is Outcome.ENGINE_ERROR


@pytest.mark.parametrize(("dialect", "tail"), BROKEN)
def test_an_error_event_is_a_failure_even_before_a_closing_event(dialect: Dialect, tail: bytes) -> None:
    assert judge_stream(tail, dialect) is Outcome.ENGINE_ERROR


LURES = ["data: [DONE]\n\n", 'data: {"error":{}}\n\n', "event: error\n", "event: message_stop\n"]


@given(text=st.text(), lure=st.sampled_from(LURES), ascii_only=st.booleans())
def test_generated_text_is_neither_an_end_nor_an_error(text: str, lure: str, ascii_only: bool) -> None:
    content = json.dumps({"delta": {"content": f"{text}\n\n{lure}"}}, ensure_ascii=ascii_only)
    event = b"data: " + content.encode("utf-8", "surrogatepass") + b"\n\n"
    assert judge_stream(event + DONE, Dialect.OPENAI) is Outcome.OK
    assert judge_stream(event, Dialect.OPENAI) is Outcome.ENGINE_ERROR


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (200, Outcome.OK), (400, Outcome.CLIENT_ERROR), (404, Outcome.CLIENT_ERROR), (429, Outcome.REJECTED),
        (500, Outcome.ENGINE_ERROR), (502, Outcome.ENGINE_ERROR), (503, Outcome.REJECTED),
    ],
)  # fmt: skip
def test_a_whole_answer_is_judged_by_its_status(status: int, outcome: Outcome) -> None:
    assert judge_status(status) is outcome


FIRST_PIECES = [
    b'{"choices":[{"delta":{"content":"H"}}]}', b'{"choices":[{"delta":{"reasoning":"Let"}}]}',
    b'{"choices":[{"delta":{"tool_calls":[{"id":"1"}]}}]}', b'{"choices":[{"text":" the"}]}',
    b'{"type":"response.output_text.delta","delta":"Hi"}', b'{"delta":{"type":"text_delta","text":"Hi"}}',
]  # fmt: skip
NO_PIECES = [
    b'{"choices":[{"delta":{"role":"assistant","content":""}}]}',
    b'{"choices":[],"usage":{"prompt_tokens":3}}',
    b'{"choices":[{"delta":{"content":null},"finish_reason":"stop"}]}', b'{"type":"response.created"}',
    b'{"type":"content_block_start","content_block":{"type":"text","text":""}}', b": keep-alive",
]  # fmt: skip


@pytest.mark.parametrize("event", FIRST_PIECES)
def test_the_first_piece_of_an_answer_is_seen_in_every_protocol(event: bytes) -> None:
    assert has_delta(event)


@pytest.mark.parametrize("event", NO_PIECES)
def test_a_role_alone_or_an_empty_piece_is_no_first_piece(event: bytes) -> None:
    assert not has_delta(event)


def test_usage_is_read_in_every_protocols_words() -> None:
    chat = b'"usage":{"prompt_tokens":7,"completion_tokens":5,"prompt_tokens_details":{"cached_tokens":4}}'
    assert read_usage(chat) == TokenUsage(7, 5, 4)
    assert read_usage(
        b'{"usage":{"input_tokens":7,"output_tokens":5,"cache_read_input_tokens":2}}'
    ) == TokenUsage(7, 5, 2)
    responses = b'"usage":{"input_tokens":9,"input_tokens_details":{"cached_tokens":1},"output_tokens":3}'
    assert read_usage(responses) == TokenUsage(9, 3, 1)


def test_the_last_usage_of_a_stream_counts() -> None:
    first, last = (b'"usage":{"prompt_tokens":1,"completion_tokens":%d}\n' % n for n in (1, 9))
    assert read_usage(first + last) == TokenUsage(1, 9)


def test_generated_text_is_no_usage() -> None:
    text = json.dumps({"content": '"usage":{"prompt_tokens":9}'}).encode()
    assert read_usage(text) is None


def test_a_version_is_blamed_for_what_no_client_can_have_at_will_and_a_user_is_failed_by_more() -> None:
    assert {one for one in Outcome if one.blames_version} == {Outcome.ENGINE_ERROR}
    failed = {Outcome.ENGINE_ERROR, Outcome.TIMEOUT, Outcome.REJECTED}
    assert {one for one in Outcome if one.fails_user} == failed
