"""Limits on the real vLLM: its tokenizer counts what a bound would refuse, its usage settles answers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx
import pytest

from loadtests.live import Live
from registry.entries.groups import GroupStore
from registry.entries.rights import DEFAULT_GROUP, NO_LIMITS, GroupLimits

TOKENS = 400
"""Less than what the bound of any prompt would be."""

USER = {"role": "user", "content": "Say something short."}
CHAT: dict[str, Any] = {"messages": [USER]}


@pytest.fixture
def limited(live: Live) -> Iterator[Live]:
    """The session's server with limits for those without keys, and without them again."""
    groups = GroupStore(live.root)
    limits = GroupLimits(input_tokens_per_minute=TOKENS, output_tokens_per_minute=10_000)
    groups.change(DEFAULT_GROUP, lambda one: replace(one, limits=limits), who="tester")
    _wait(live, limited=True)
    yield live
    groups.change(DEFAULT_GROUP, lambda one: replace(one, limits=NO_LIMITS), who="tester")
    _wait(live, limited=False)


def _wait(live: Live, *, limited: bool) -> None:
    deadline = time.monotonic() + 10
    while ("x-ratelimit-limit-tokens" in _ask(live, "/v1/completions", prompt="a").headers) is not limited:
        assert time.monotonic() < deadline, "the server has not seen the group"
        time.sleep(0.1)


def _ask(live: Live, path: str, **body: Any) -> httpx.Response:
    return httpx.post(live.url + path, json={"model": "support", "max_tokens": 4, **body}, timeout=120)


def test_prompts_are_counted_where_the_bound_would_be_refused(limited: Live) -> None:
    """What is told as left is the limit without exactly the tokens that vLLM had in its prompts."""
    left = int(_ask(limited, "/v1/chat/completions", **CHAT).headers["x-ratelimit-remaining-tokens"])
    for path, body in (
        ("/v1/chat/completions", CHAT),
        ("/v1/completions", {"prompt": "one two three"}),
        ("/v1/completions", {"prompt": ["one two", "three four five"]}),
        ("/v1/chat/completions", {"messages": [{"role": "system", "content": "Be brief."}, USER]}),
    ):
        answer = _ask(limited, path, **body)
        assert answer.status_code == 200, answer.text
        before, left = left, int(answer.headers["x-ratelimit-remaining-tokens"])
        assert before - left == answer.json()["usage"]["prompt_tokens"]


def test_a_stream_that_does_not_tell_its_usage_is_settled_by_it(limited: Live) -> None:
    stream = _ask(limited, "/v1/chat/completions", stream=True, **CHAT)
    assert stream.status_code == 200
    assert '"usage"' not in stream.text
    assert stream.text.rstrip().endswith("data: [DONE]")
    asked = _ask(limited, "/v1/chat/completions", stream=True, stream_options={"include_usage": True}, **CHAT)
    assert asked.text.count('"usage":{') == 1


def test_a_prompt_that_does_not_fit_is_refused_and_one_that_does_is_not(limited: Live) -> None:
    long = {"messages": [{"role": "user", "content": "word " * (2 * TOKENS)}]}
    refused = _ask(limited, "/v1/chat/completions", **long)
    assert refused.status_code == 429
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"
    assert _ask(limited, "/v1/completions", prompt="short").status_code == 200
