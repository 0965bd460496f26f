"""What vLLM refuses is told in one dialect, and so that a person can read it."""

from __future__ import annotations

import json

import pytest

from serve.protocol.forwarded import read_event, read_forwarded

INVALID, SERVER = "invalid_request_error", "server_error"
OVERFLOW = (
    "This model's maximum context length is 2048 tokens. However, your prompt contains 5000 input tokens, "
    "which exceeds this limit even without any output tokens. Please reduce the length of the input prompt."
)
FAULTS = "239 validation errors:\n" + "".join(
    f"  {{'type': 'missing', 'loc': 'body.input.{n}.id', 'msg': 'Field required', 'input': '<dict>'}}\n"
    for n in range(10)
)


def told(message: str, kind: str = "BadRequestError", code: int = 400, param: str | None = None) -> bytes:
    """Return an error as vLLM writes it."""
    return json.dumps({"error": {"message": message, "type": kind, "param": param, "code": code}}).encode()


@pytest.mark.parametrize(
    ("status", "body", "words", "kind", "param", "code"),
    [
        (400, told("no"), "no", INVALID, None, "invalid_request"),
        (422, told("no", "UnprocessableEntityError", 422), "no", INVALID, None, "invalid_request"),
        (404, told("no", "NotFoundError", 404), "no", INVALID, None, "not_found"),
        (404, told("no", "NotFoundError", 404, "model"), "no", INVALID, "model", "model_not_found"),
        (404, b'{"detail":"Not Found"}', "Not Found", INVALID, None, "not_found"),
        (429, told("no", "x", 429), "no", "rate_limit_error", None, "rate_limit_exceeded"),
        (500, told("no", "InternalServerError", 500), "no", SERVER, None, "engine_error"),
        (500, b"Internal Server Error", "Internal Server Error", SERVER, None, "engine_error"),
        (501, told("no", "NotImplementedError", 501), "no", INVALID, None, "unsupported"),
        (503, told("no", "ServiceUnavailableError", 503), "no", SERVER, None, "server_is_overloaded"),
        (400, told("no", param="body.messages.0"), "no", INVALID, "messages.0", "invalid_request"),
        (400, b"", "status 400", INVALID, None, "invalid_request"),
        (400, b"[1", "[1", INVALID, None, "invalid_request"),
        (400, b'{"error": "plain"}', "plain", INVALID, None, "invalid_request"),
        (400, b'{"detail": [1]}', '{"detail": [1]}', INVALID, None, "invalid_request"),
    ],
)
def test_an_error_of_vllm_gets_our_type_and_code(
    status: int, body: bytes, words: str, kind: str, param: str | None, code: str
) -> None:
    found = read_forwarded(status, body, ())
    assert (found.http_status, str(found)) == (status, words)
    assert (found.type, found.param, found.code) == (kind, param, code)


@pytest.mark.parametrize("field", ["messages", "prompt", "input"])
def test_a_context_overflow_has_openais_code_and_names_the_field(field: str) -> None:
    found = read_forwarded(400, told(OVERFLOW, param="input_tokens"), {"model", field})
    assert (found.code, found.param, str(found)) == ("context_length_exceeded", field, OVERFLOW)


@pytest.mark.parametrize(
    "text",
    [
        "The engine prompt length 5 exceeds the max_model_len 4. Please reduce prompt.",
        "Input length (5) exceeds model's maximum context length (4).",
        "The decoder prompt (length 5) is longer than the maximum model length of 4.",
    ],
)
def test_every_wording_of_an_overflow_is_known(text: str) -> None:
    assert read_forwarded(400, told(text), {"input"}).code == "context_length_exceeded"


def test_more_tokens_than_the_context_are_no_overflow_of_the_prompt() -> None:
    text = "max_tokens=9 cannot be greater than max_model_len=4. Please request fewer output tokens."
    found = read_forwarded(400, told(text, param="max_tokens"), {"messages"})
    assert (found.code, found.param) == ("invalid_request", "max_tokens")


def test_an_overflow_of_messages_begins_with_anthropics_words() -> None:
    found = read_forwarded(400, told(OVERFLOW), {"messages"}, messages=True)
    assert str(found).startswith("prompt is too long: ")


def test_of_many_validation_errors_three_are_told_and_the_rest_is_counted() -> None:
    text = str(read_forwarded(400, told(FAULTS, "Bad Request"), {"input"}))
    three = "; ".join(f"input.{n}.id: Field required" for n in range(3))
    assert text == f"{three}; and 236 more"
    one = FAULTS.replace("239 validation errors", "1 validation error").splitlines()
    assert str(read_forwarded(400, told("\n".join(one[:2])), ())) == "input.0.id: Field required"


def test_a_long_message_is_cut() -> None:
    text = str(read_forwarded(400, told("long " * 1_000), ()))
    assert len(text) < 700
    assert text.endswith("…")


@pytest.mark.parametrize(
    "text",
    [
        "1 validation error for AnthropicContentBlock\ninput\n  Input should be a valid dictionary",
        "Expecting value: line 1 column 1 (char 0)",
        "Unterminated string starting at: line 1 column 9 (char 8)",
    ],
)
def test_a_models_answer_that_is_no_tool_call_is_not_the_clients_error(text: str) -> None:
    found = read_forwarded(400, told(text), {"messages", "tools"}, messages=True)
    assert (found.http_status, found.type, found.code) == (500, "server_error", "engine_error")
    assert "strict: true" in str(found)
    assert read_forwarded(400, told(text), {"messages"}).http_status == 400


@pytest.mark.parametrize(
    ("event", "status"),
    [
        (b'data: {"error": {"message": "no", "type": "x", "code": 503}}\n\n', 503),
        (b'event: error\ndata: {"type":"error","error":{"type":"internal_error","message":"no"}}\n\n', 500),
    ],
)
def test_an_error_event_is_read_like_an_error(event: bytes, status: int) -> None:
    found = read_event(event, ())
    assert found is not None
    assert (found.http_status, str(found)) == (status, "no")
    assert read_event(b": comment\n\n", ()) is None
