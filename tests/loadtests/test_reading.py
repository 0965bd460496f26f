"""Reading an answer: what is a first token, what is an end, and where the numbers of tokens come from."""

from __future__ import annotations

import json

import pytest

from loadtests.runner.reading import AnswerReader
from loadtests.runner.records import CANCELLED, ERROR, OK
from tests.loadtests.making import record


def reading(*, stream: bool = True, keep_text: bool = False) -> AnswerReader:
    fresh = record(0.0, first=None, outcome="unfinished", output_tokens=0, pieces=0, stream=stream)
    found = AnswerReader(fresh, keep_text=keep_text)
    found.headers(200, {"x-wardrobe-adapter": "support@3", "x-wardrobe-arm": "canary"})
    return found


def data(value: object) -> bytes:
    return b"data: " + (value if isinstance(value, bytes) else json.dumps(value).encode()) + b"\n\n"


def delta(**fields: object) -> bytes:
    return data({"id": "chatcmpl-7", "choices": [{"delta": fields}]})


USAGE = data({"choices": [], "usage": {"prompt_tokens": 4, "completion_tokens": 9}})
DONE = data(b"[DONE]")


def test_a_delta_that_holds_only_the_role_is_no_first_token() -> None:
    found = reading()
    for now, event in enumerate([delta(role="assistant", content=""), delta(content=None), USAGE]):
        found.feed(event, float(now))
    assert found.record.pieces == 0
    found.feed(delta(content="Hi"), 7.0)
    found.feed(delta(content="!"), 8.0)
    assert (found.record.first, found.record.pieces) == (7.0, 2)


@pytest.mark.parametrize(
    "fields",
    [
        {"reasoning_content": "Hm"},
        {"reasoning": "Hm"},
        {"tool_calls": [{"function": {"arguments": "{"}}]},
    ],
)
def test_thoughts_and_calls_of_tools_are_text(fields: dict[str, object]) -> None:
    found = reading()
    found.feed(delta(**fields), 3.0)
    assert found.record.first == 3.0


def test_completions_hold_their_text_in_the_choice() -> None:
    found = reading(keep_text=True)
    found.feed(data({"choices": [{"text": ""}]}) + data({"choices": [{"text": "a b"}]}), 1.0)
    assert (found.record.pieces, found.text) == (1, "a b")


def test_events_that_arrive_in_parts_are_put_together() -> None:
    found = reading(keep_text=True)
    stream = delta(content="é") + USAGE + DONE
    for position in range(len(stream)):
        found.feed(stream[position : position + 1], float(position))
    found.close(99.0)
    assert (found.record.outcome, found.record.output_tokens, found.text) == (OK, 9, "é")
    assert found.record.response_id == "chatcmpl-7"
    assert (found.record.version, found.record.arm) == ("support@3", "canary")


def test_a_stream_without_its_closing_event_is_cut_whatever_its_status() -> None:
    found = reading()
    found.feed(delta(content="Hi") + USAGE, 1.0)
    found.close(2.0)
    assert (found.record.outcome, found.record.error) == (ERROR, "cut")


def test_an_error_inside_a_stream_is_an_error_even_when_the_stream_closes_well() -> None:
    found = reading()
    found.feed(delta(content="Hi") + data({"error": {"message": "died"}}) + DONE, 1.0)
    found.close(2.0)
    assert (found.record.outcome, found.record.error, found.record.detail) == (ERROR, "error event", "died")


def test_an_event_that_is_no_json_is_an_error() -> None:
    found = reading()
    found.feed(data(b"{nonsense"), 1.0)
    found.close(2.0)
    assert found.record.error == "invalid"


def test_an_error_status_is_named_with_what_the_server_said() -> None:
    found = reading()
    found.headers(503, {})
    found.whole(b'{"error": {"message": "busy"}}')
    found.close(1.0)
    assert (found.record.error, found.record.detail) == ("http 503", "busy")


def test_an_answer_that_is_no_stream_has_tokens_and_no_first_token() -> None:
    found = reading(stream=False, keep_text=True)
    answer = {"id": "c", "choices": [{"message": {"content": "Hi"}}], "usage": {"completion_tokens": 3}}
    found.whole(json.dumps(answer).encode())
    found.close(1.0)
    assert (found.record.outcome, found.record.output_tokens, found.text) == (OK, 3, "Hi")
    assert found.record.first is None


def test_an_answer_that_is_no_json_is_invalid() -> None:
    found = reading(stream=False)
    found.whole(b"<html>")
    found.close(1.0)
    assert (found.record.outcome, found.record.error) == (ERROR, "invalid")


def test_a_cancelled_request_stays_one() -> None:
    found = reading()
    found.record.outcome = CANCELLED
    found.close(1.0)
    assert (found.record.outcome, found.record.error) == (CANCELLED, "")
