"""What would be taken and ignored is refused by name, before any version is asked; the rest passes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import openai
import pytest

from registry.errors import WardrobeError
from registry.store import Registry
from serve.engine.interface import Abilities
from serve.protocol.body import parse_fields
from serve.protocol.fields import IGNORED, UNSERVED, check_fields, watched
from tests.fakes.engine import FakeEngine
from tests.fakes.served import BASE, Served, serve

ABLE = Abilities()
FUNCTION = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
FLAT = {"type": "function", "name": "f", "parameters": {"type": "object"}}
OWN = {"name": "f", "input_schema": {"type": "object"}}
PATHS = {"openai": "/v1/chat/completions", "responses": "/v1/responses", "messages": "/v1/messages"}


def refused(dialect: str, body: dict[str, Any], abilities: Abilities = ABLE) -> str:
    """Return the code and the field of the refusal, nothing where all passes."""
    try:
        check_fields(dialect, parse_fields(json.dumps(body).encode(), frozenset()), abilities)
    except WardrobeError as error:
        return f"{error.code} {error.param}"
    return ""


@pytest.mark.parametrize(
    ("dialect", "body", "field"),
    [
        ("openai", {"modalities": ["text", "audio"]}, "modalities"),
        ("openai", {"audio": {"voice": "alloy"}}, "audio"),
        ("openai", {"web_search_options": {}}, "web_search_options"),
        ("openai", {"prediction": {"type": "content", "content": "x"}}, "prediction"),
        ("openai", {"functions": [{"name": "f"}]}, "functions"),
        ("openai", {"function_call": "auto"}, "function_call"),
        ("openai", {"guided_json": {}}, "guided_json"),
        ("responses", {"guided_choice": ["a"]}, "guided_choice"),
        ("responses", {"conversation": "conv_1"}, "conversation"),
        ("responses", {"background": True}, "background"),
        ("responses", {"tools": [FLAT, {"type": "web_search"}]}, "tools"),
        ("responses", {"tools": [{"type": "code_interpreter", "container": "x"}]}, "tools"),
        ("responses", {"tools": [{"type": "mcp", "server_label": "x"}]}, "tools"),
        ("messages", {"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools"),
        ("messages", {"mcp_servers": [{"url": "x"}]}, "mcp_servers"),
        ("messages", {"container": "c"}, "container"),
    ],
)
def test_what_would_be_ignored_is_refused_by_name(dialect: str, body: dict[str, Any], field: str) -> None:
    assert refused(dialect, body) == f"unsupported_parameter {field}"
    assert not watched(dialect).isdisjoint(body)


@pytest.mark.parametrize(
    ("dialect", "body"),
    [
        ("openai", {"modalities": ["text"], "audio": None, "functions": None, "web_search_options": None}),
        ("openai", {"metadata": {"a": "b"}, "service_tier": "auto", "user": "u", "store": True}),
        ("openai", {"tools": [FUNCTION], "tool_choice": "auto"}),
        ("openai", {"tools": None}),
        ("openai", {"tools": 3}),
        ("responses", {"background": False, "conversation": None}),
        ("responses", {"tools": [FLAT, {"type": "custom", "name": "c"}]}),
        ("messages", {"tools": [OWN, {**OWN, "type": "custom"}]}),
    ],
)
def test_what_is_served_or_changes_nothing_passes(dialect: str, body: dict[str, Any]) -> None:
    assert refused(dialect, body) == ""


def test_tools_that_the_server_was_set_up_to_run_pass() -> None:
    body = {"tools": [{"type": "web_search_preview"}]}
    assert refused("responses", body, Abilities(hosted_tools=True)) == ""


@pytest.mark.parametrize(
    ("dialect", "tools", "none"),
    [
        ("openai", [FUNCTION], "none"),
        ("responses", [FLAT], "none"),
        ("messages", [OWN], {"type": "none"}),
    ],
)
def test_tools_without_a_parser_are_refused_unless_none_is_to_be_called(
    dialect: str, tools: list[Any], none: object
) -> None:
    unable = Abilities(calls_tools=False)
    for choice in (
        {},
        {"tool_choice": "auto"},
        {"tool_choice": "required"},
        {"tool_choice": {"type": "any"}},
    ):
        assert refused(dialect, {"tools": tools, **choice}, unable) == "tools_not_enabled tools"
    assert refused(dialect, {"tools": tools, "tool_choice": none}, unable) == ""
    assert refused(dialect, {"tools": []}, unable) == ""


def test_a_field_is_refused_or_ignored_and_not_both() -> None:
    assert len({(one.field, one.dialects) for one in UNSERVED}) == len(UNSERVED)
    assert {one.field for one in UNSERVED}.isdisjoint(IGNORED)


def ask(served: Served, dialect: str, **fields: object) -> Any:
    body = {"model": "support", "messages": [], "input": "Hi", "max_tokens": 5, **fields}
    answer = served.client.post(PATHS[dialect], json=body)
    assert answer.status_code == 400
    return answer.json()["error"]


def test_all_three_protocols_refuse_tools_alike_and_no_version_is_loaded(
    registry: Registry, tmp_path: Path
) -> None:
    engine = FakeEngine(base_name=BASE, abilities=Abilities(calls_tools=False))
    with serve(registry, tmp_path, engine=engine) as served:
        loads = len(engine.calls)
        said = {
            ask(served, name, tools=[tool])["message"]
            for name, tool in zip(PATHS, (FUNCTION, FLAT, OWN), strict=True)
        }
        assert len(said) == 1
        assert "tool_call_parser" in said.pop()
        assert ask(served, "openai", modalities=["audio"])["param"] == "modalities"
        assert (served.inner.seen, served.outcomes(), len(engine.calls)) == ([], {}, loads)
        assert served.metric("wardrobe_rejections_total", reason="bad_request") == 4


PATHS_OF_A_GENERATING_BASE = frozenset(
    {"/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages", "/tokenize", "/detokenize"}
)


def test_a_generating_base_says_that_it_gives_no_embeddings_or_scores(
    registry: Registry, tmp_path: Path
) -> None:
    engine = FakeEngine(base_name=BASE, abilities=Abilities(paths=PATHS_OF_A_GENERATING_BASE))
    with serve(registry, tmp_path, engine=engine) as served:
        loads = len(engine.calls)
        url = f"{served.client.base_url}/v1"
        with (
            openai.OpenAI(base_url=url, api_key="none", max_retries=0) as client,
            pytest.raises(
                openai.NotFoundError, match="needs a base model that gives embeddings; tiny gives text"
            ) as caught,
        ):
            client.embeddings.create(model="support", input="Hi")
        assert caught.value.code == "task_not_supported"
        for path in ("/v1/score", "/v1/rerank", "/v1/systemone"):
            answer = served.client.post(path, json={"model": "support"})
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "task_not_supported")
            assert answer.headers["x-request-id"]
        assert served.client.get("/v1/embeddings").status_code == 405
        assert served.chat().status_code == 200
        assert len(engine.calls) == loads
        assert served.outcomes() == {"ok": 1}


def test_a_pooling_base_says_that_it_generates_nothing(registry: Registry, tmp_path: Path) -> None:
    engine = FakeEngine(base_name=BASE, abilities=Abilities(paths=frozenset({"/v1/embeddings"})))
    with serve(registry, tmp_path, engine=engine) as served:
        for path in ("/v1/chat/completions", "/v1/messages", "/v1/responses"):
            error = served.client.post(path, json={"model": "support"}).json()["error"]
            assert "gives text; tiny gives vectors and scores" in error["message"]
        assert served.client.post("/v1/embeddings", json={"model": "support"}).status_code == 200
