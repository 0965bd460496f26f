"""Every error on the wire: who it names, whose dialect it speaks, and whether to try again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from registry.entries.keys import KeyStore
from registry.entries.rights import Scope
from registry.store import Registry
from serve.settings import RequestLimits
from tests.fakes.served import Served, serve

CHAT = {"model": "support", "messages": [{"role": "user", "content": "Hi"}]}
MESSAGES = {**CHAT, "max_tokens": 5}
TYPES = {
    400: "invalid_request_error", 401: "authentication_error", 403: "permission_error",
    404: "not_found_error", 413: "request_too_large", 429: "rate_limit_error", 500: "api_error",
    503: "overloaded_error", 504: "timeout_error",
}  # fmt: skip


@pytest.fixture
def served(registry: Registry, tmp_path: Path) -> Iterator[Served]:
    with serve(registry, tmp_path, limits=RequestLimits(max_body_bytes=10_000)) as server:
        yield server


ANSWERS = [
    ("GET", "/v1/models", None, 200),
    ("GET", "/v1/models/nobody", None, 404),
    ("GET", "/livez", None, 200),
    ("GET", "/readyz", None, 200),
    ("GET", "/metrics", None, 200),
    ("GET", "/nothing", None, 404),
    ("GET", "/v1/chat/completions", None, 405),
    ("POST", "/v1/chat/completions", CHAT, 200),
    ("POST", "/v1/chat/completions", {**CHAT, "stream": True}, 200),
    ("POST", "/v1/chat/completions", {**CHAT, "model": "nobody"}, 404),
    ("POST", "/v1/chat/completions", {**CHAT, "lora_path": "/x"}, 400),
    ("POST", "/v1/chat/completions", {**CHAT, "play": "422"}, 422),
    ("POST", "/v1/chat/completions", {**CHAT, "play": "500"}, 500),
    ("POST", "/v1/chat/completions", {**CHAT, "pad": "x" * 20_000}, 413),
    ("POST", "/v1/messages", MESSAGES, 200),
    ("POST", "/v1/messages", {**MESSAGES, "model": "nobody"}, 404),
    ("GET", "/v1/messages", None, 405),
    ("POST", "/v1/feedback", {}, 400),
    ("GET", "/admin/v1/status", None, 200),
    ("GET", "/admin/v1/nothing", None, 404),
    ("GET", "/admin/v1/adapters/nobody", None, 404),
]


@pytest.mark.parametrize(("method", "path", "body", "status"), ANSWERS)
def test_every_answer_names_its_request(
    served: Served, method: str, path: str, body: dict[str, Any] | None, status: int
) -> None:
    for own in ("mine-1", None):
        headers = {"x-request-id": own} if own else {}
        answer = served.client.request(method, path, json=body, headers=headers)
        assert answer.status_code == status
        (name,) = answer.headers.get_list("x-request-id")
        assert name == own if own else len(name) >= 20
        assert (answer.headers.get("request-id") == name) == path.startswith("/v1/messages")


def test_refused_keys_have_an_id_too_and_a_fresh_one_each_time(registry: Registry, tmp_path: Path) -> None:
    _, token = KeyStore(registry.root).create({Scope.INFER}, who="tester")
    with serve(registry, tmp_path) as served:
        named = set()
        for path, key, status in (
            ("/v1/models", None, 401),
            ("/v1/models", "wrong", 401),
            ("/admin/v1/status", token, 403),
        ):
            headers = {"authorization": f"Bearer {key}"} if key else {}
            answer = served.client.get(path, headers=headers)
            assert answer.status_code == status
            named.add(answer.headers["x-request-id"])
        refused = served.client.post("/v1/messages", json=MESSAGES)
        assert (refused.status_code, refused.json()["error"]["type"]) == (401, "authentication_error")
        named.add(refused.headers["request-id"])
    assert len(named) == 4


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422, 429, 500, 503, 504])
def test_messages_speak_anthropics_types_whoever_refused(served: Served, status: int) -> None:
    answer = served.client.post("/v1/messages", json={**MESSAGES, "play": str(status)})
    found = answer.json()
    assert (answer.status_code, found["type"]) == (status, "error")
    assert found["error"]["type"] == TYPES.get(status, "invalid_request_error")
    assert found["error"]["message"] == "as told"
    unknown = served.client.post("/v1/messages", json={**MESSAGES, "model": "nobody"}).json()
    assert unknown["error"]["type"] == "not_found_error"
    assert "adapters: support" in unknown["error"]["message"]


def test_a_request_that_took_all_its_time_is_not_sent_again(registry: Registry, tmp_path: Path) -> None:
    with serve(registry, tmp_path, limits=RequestLimits(total_seconds=0.2)) as served:
        client = openai.OpenAI(base_url=f"{served.client.base_url}/v1", api_key="none", max_retries=2)
        with client, pytest.raises(openai.APIStatusError) as caught:
            client.chat.completions.create(**CHAT, extra_body={"play": "hang"})  # type: ignore[call-overload]
        assert caught.value.status_code == 504
        assert caught.value.response.headers["x-should-retry"] == "false"
        assert len(served.inner.seen) == 1


def test_the_official_clients_raise_by_class_with_code_and_id(served: Served) -> None:
    import anthropic

    url = str(served.client.base_url)
    overflow = {"message": "This model's maximum context length is 4 tokens.", "code": 400, "type": "x"}
    extra = {"play": "refusal", "status": 400, "refusal": {"error": {**overflow, "param": "input_tokens"}}}
    with openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        with pytest.raises(openai.BadRequestError) as refused:
            client.chat.completions.create(**CHAT, extra_body=extra)  # type: ignore[call-overload]
        assert (refused.value.code, refused.value.param) == ("context_length_exceeded", "messages")
        assert refused.value.type == "invalid_request_error"
        assert refused.value.request_id
    with anthropic.Anthropic(base_url=url, api_key="none", max_retries=0) as other:
        with pytest.raises(anthropic.BadRequestError, match="prompt is too long") as long:
            other.messages.create(**MESSAGES, extra_body=extra)  # type: ignore[call-overload]
        assert long.value.request_id
        with pytest.raises(anthropic.NotFoundError) as unknown:
            other.messages.create(**{**MESSAGES, "model": "nobody"})  # type: ignore[call-overload]
        assert unknown.value.request_id


def test_a_model_that_calls_no_tool_is_the_versions_error_and_not_the_clients(served: Served) -> None:
    words = "1 validation error for AnthropicContentBlock\ninput\n  Input should be a valid dictionary"
    refusal = {"type": "error", "error": {"type": "BadRequestError", "message": words}}
    body = {**MESSAGES, "play": "refusal", "status": 400, "refusal": refusal}
    answer = served.client.post("/v1/messages", json=body)
    assert (answer.status_code, answer.json()["error"]["type"]) == (500, "api_error")
    served.settled()
    assert served.outcomes() == {"engine_error": 1}


PLAIN = 'data: {"error": {"message": "no", "type": "InternalServerError", "code": 500}}\n\n'
NAMED = 'event: error\ndata: {"type":"error","error":{"type":"internal_error","message":"no"}}\n\n'
EVENTS = {"/v1/chat/completions": PLAIN, "/v1/messages": NAMED, "/v1/responses": PLAIN}


@pytest.mark.parametrize("path", EVENTS)
@pytest.mark.parametrize("before", [0, 2])
def test_an_error_within_a_stream_speaks_the_same_dialect(served: Served, path: str, before: int) -> None:
    events = [*['data: {"x": 1}\n\n'] * before, EVENTS[path]]
    body = {**MESSAGES, "input": "Hi", "stream": True, "play": "events", "events": events}
    with served.client.stream("POST", path, json=body) as answer:
        lines = [line for line in answer.iter_lines() if line]
    found = json.loads(lines[-1].removeprefix("data: "))
    inner = {"message": "no", "type": "server_error", "param": None, "code": "engine_error"}
    if path == "/v1/messages":
        assert found == {"type": "error", "error": {**inner, "type": "api_error"}}
    elif path == "/v1/responses":
        flat = {"type": "error", "sequence_number": before, "code": "engine_error", "message": "no"}
        assert found == {**flat, "param": None, "error": inner}
    else:
        assert found == {"error": inner}
    served.settled()
    assert served.outcomes() == {"engine_error": 1}


def test_a_stream_is_not_to_be_kept_by_a_cache(served: Served) -> None:
    with served.client.stream("POST", "/v1/chat/completions", json={**CHAT, "stream": True}) as answer:
        assert answer.headers.get_list("cache-control") == ["no-cache"]
        answer.read()
    assert "cache-control" not in served.chat().headers


def test_a_raised_error_behind_has_our_shape(served: Served) -> None:
    answer: httpx.Response = served.chat(play="raise")
    assert answer.status_code == 500
    assert answer.json()["error"]["code"] == "engine_error"
    assert answer.headers["x-request-id"]
