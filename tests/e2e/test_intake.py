"""What the real server refuses before vLLM works on it, and that others are answered meanwhile."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from loadtests.live import Live
from tests.fakes.raw import RawClient

USER = {"role": "user", "content": "hi"}
CHAT = "/v1/chat/completions"


def ask(live: Live, path: str, body: dict[str, Any]) -> httpx.Response:
    return httpx.post(live.url + path, json={"max_tokens": 2, **body}, timeout=120)


@pytest.mark.parametrize(
    ("path", "body", "code"),
    [
        (CHAT, {"messages": [USER] * 200_000}, "body_too_complex"),
        (
            CHAT,
            {"messages": [{"role": "user", "content": "hello world " * 100_000}]},
            "context_length_exceeded",
        ),
        ("/v1/completions", {"prompt": "x" * 10**6, "truncate_prompt_tokens": 9}, "context_length_exceeded"),
        ("/v1/completions", {"prompt": "a", "n": 10_000}, "body_too_complex"),
        (
            "/v1/responses",
            {"input": [{"role": "assistant", "content": [{"type": "output_text"}]}] * 500},
            "invalid_body",
        ),
        (
            "/v1/responses",
            {"input": [*[USER] * 9, {"role": "user", "content": [{}] * 4_000}]},
            "invalid_body",
        ),
        (CHAT, {"messages": [USER], "structured_outputs": {"regex": "a" * 10**6}}, "body_too_complex"),
        (CHAT, {"messages": [USER], "structured_outputs": {"regex": "(ab|c)*" * 585}}, "body_too_complex"),
        (CHAT, {"messages": [USER], "structured_outputs": {"grammar": "root ::= root"}}, "invalid_body"),
        (CHAT, {"messages": [USER], "structured_outputs": {"json": {"$ref": "#"}}}, "invalid_body"),
    ],
)
def test_what_would_hold_the_engine_is_refused_in_our_words(
    live: Live, path: str, body: dict[str, Any], code: str
) -> None:
    answer = ask(live, path, body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)


@pytest.mark.parametrize(
    "constraint",
    [
        {"regex": r"[a-z]{1,3}"},
        {"choice": ["yes", "no"]},
        {
            "json": {
                "type": "object",
                "properties": {"a": {"type": "string", "maxLength": 3}},
                "required": ["a"],
            }
        },
        {"grammar": 'root ::= "a" | "b"'},
    ],
)
def test_what_constrains_an_answer_within_the_limits_does(live: Live, constraint: dict[str, Any]) -> None:
    body = {"messages": [USER], "structured_outputs": constraint, "max_tokens": 30}
    assert ask(live, CHAT, body).status_code == 200


def test_a_history_of_right_items_is_answered(live: Live) -> None:
    assert ask(live, "/v1/responses", {"input": [USER] * 30, "max_output_tokens": 2}).status_code == 200


def test_vllm_serves_by_our_protocol_and_shows_its_connections(live: Live) -> None:
    with RawClient(live.port) as client:
        client.send(b"GET /livez HTTP/1.1\r\nx: " + b"a" * 2_000_000)
        assert client.answer().error()["code"] == "head_too_large"
    with RawClient(live.port) as client:
        rebound = client.ask("GET", "/v1/models", ["host: evil.example"])
        assert (rebound.status, rebound.error()["code"]) == (421, "foreign_host")
    page = httpx.get(live.url + "/metrics", timeout=30).text
    assert 'wardrobe_connections{state="busy"}' in page
    assert 'wardrobe_connections_refused_total{code="head_too_large"}' in page
    assert json.loads(httpx.get(live.url + "/readyz", timeout=30).text)["status"] == "ready"
