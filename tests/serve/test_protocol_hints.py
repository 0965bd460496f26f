"""A wrong path is answered with the right one."""

from __future__ import annotations

import re

import pytest

from serve.protocol.hints import hint
from serve.protocol.paths import find_endpoint


def known(path: str) -> bool:
    return find_endpoint(path.encode()) is not None


def said(path: str) -> str:
    assert not known(path)
    return hint(path, known)


@pytest.mark.parametrize(
    ("path", "right", "reason"),
    [
        ("/chat/completions", "/v1/chat/completions", "OpenAI's clients ends in /v1"),
        ("/models", "/v1/models", "ends in /v1"),
        ("/models/support", "/v1/models/support", "ends in /v1"),
        ("/v1/chat/completions/", "/v1/chat/completions", ""),
        ("/v1/models/", "/v1/models", ""),
        ("//v1/chat/completions", "/v1/chat/completions", ""),
        ("/v1//chat/completions", "/v1/chat/completions", ""),
        ("/v1/v1/chat/completions", "/v1/chat/completions", "ends in /v1"),
        ("/v1/v1/messages", "/v1/messages", "Anthropic's clients has no /v1"),
        ("/api/v1/chat/completions", "/v1/chat/completions", ""),
        ("/openai/v1/responses", "/v1/responses", ""),
        ("/openai/deployments/support/chat/completions", "/v1/chat/completions", "as `model`"),
        ("/v1/engines/support/completions", "/v1/completions", "as `model`"),
        ("/v1/completion", "/v1/completions", ""),
        ("/v1/chat/completion", "/v1/chat/completions", ""),
        ("/V1/Chat/Completions", "/v1/chat/completions", ""),
        ("/v1/message", "/v1/messages", ""),
        ("/v1/health", "/health", ""),
        ("/tokenize", "/v1/tokenize", "ends in /v1"),
        ("/v1/admin/v1/status", "/admin/v1/status", ""),
        ("/a/support/chat/completions", "/a/support/v1/chat/completions", ""),
        ("/a/support/v1/v1/models", "/a/support/v1/models", ""),
        ("/a/support@2/v1/completion", "/a/support@2/v1/completions", ""),
        ("/a/support/metrics", "/metrics", ""),
    ],
)
def test_a_wrong_path_names_the_right_one_and_why(path: str, right: str, reason: str) -> None:
    words = said(path)
    assert words.startswith(f"did you mean {right}?")
    assert reason in words


@pytest.mark.parametrize(
    "path", ["/a/Up/v1/models", "/a/a b/v1/models", "/a//v1/models", "/a/../x/v1/models", "/a/" + "x" * 300]
)
def test_what_is_no_name_is_told_and_the_base_is_not_offered_in_its_place(path: str) -> None:
    words = said(path)
    assert "is no adapter's name: after /a/ comes NAME, NAME@N or NAME@ALIAS" in words
    assert len(words) < 200


@pytest.mark.parametrize("path", ["/a/support", "/a/support/", "/a/support/v1", "/a/support/v1/"])
def test_a_base_url_that_is_asked_itself_is_told_what_to_ask(path: str) -> None:
    assert "ask POST /a/support/v1/chat/completions" in said(path)


@pytest.mark.parametrize(
    "path", ["/", "/v1", "/ui", "/dashboard", "/v1/runs", "/v1/audio/speech", "/x" * 500]
)
def test_a_path_without_a_likeness_names_what_there_is(path: str) -> None:
    words = said(path)
    assert "POST /v1/chat/completions, GET /v1/models" in words
    assert len(words) < 300


@pytest.mark.parametrize(
    "path", ["/docs", "/redoc", "/openapi.json", "/version", "/ping", "/healthz", "/docs/"]
)
def test_a_page_that_other_servers_have_is_answered_with_what_stands_for_it(path: str) -> None:
    assert re.search(r"GET /(admin/openapi\.json|livez)", said(path))


@pytest.mark.parametrize("path", ["/é", "/\x00", "/v1/models/%2e%2e", "/" + "a/" * 5_000, "/?x"])
def test_whatever_is_asked_there_is_an_answer_and_it_names_only_what_exists(path: str) -> None:
    words = hint(path, known)
    for named in re.findall(r"did you mean (\S+)\?", words):
        assert known(named)
