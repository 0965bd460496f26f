"""The most that a request may use is told from its body, and nothing that it may use is left out."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from serve.groups.counting import PromptCounter
from serve.groups.sizes import TEMPLATE_TOKENS, RequestSize, cap, measure
from serve.protocol.body import Fields, parse_fields
from serve.protocol.paths import ENDPOINTS

CONTEXT = 10_000
CHAT, TEXT, BATCH = "/v1/chat/completions", "/v1/completions", "/v1/chat/completions/batch"


def _fields(body: dict[str, Any]) -> Fields:
    return parse_fields(json.dumps(body).encode(), frozenset())


def _size(path: str, **body: Any) -> RequestSize:
    return measure(ENDPOINTS[path.encode()], _fields(body), CONTEXT)


def _message(text: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text}]


def test_a_prompt_has_no_more_tokens_than_bytes_and_no_more_than_the_context() -> None:
    assert 500 + TEMPLATE_TOKENS <= _size(CHAT, messages=_message("x" * 500)).input < 600 + TEMPLATE_TOKENS
    assert _size(CHAT, messages=_message("é" * 100)).input >= 200 + TEMPLATE_TOKENS
    assert _size(CHAT, messages=_message("x" * 50_000)).input == CONTEXT


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "http://x/y.png"}},
        {"type": "input_audio", "input_audio": {"data": "eA=="}},
        {"type": "file", "file": {"file_id": "a"}},
        {"type": "video_url", "video_url": {"url": "x"}},
    ],
)
def test_what_is_more_than_text_may_fill_the_context(part: dict[str, Any]) -> None:
    assert _size(CHAT, messages=[{"role": "user", "content": [part]}]).input == CONTEXT
    said = json.dumps(part)
    assert _size(CHAT, messages=_message(said)).input < CONTEXT
    assert _size(CHAT, messages=_message(f"\u00e9 {said}")).input < CONTEXT


@pytest.mark.parametrize(
    "key", ['"image_url" :', '"image_url"\n\t:', '"image_\\u0075rl":', '"image_ur\\u006c" :']
)
def test_no_spelling_hides_an_image(key: str) -> None:
    body = '{"messages":[{"role":"user","content":[{"type":"image_url",KEY{"url":"http://x/y.png"}}]}]}'
    fields = parse_fields(body.replace("KEY", key).encode(), frozenset())
    assert measure(ENDPOINTS[CHAT.encode()], fields, CONTEXT).input == CONTEXT


def test_a_decision_has_its_state_for_each_question_and_its_media() -> None:
    questions = {str(n): {"choices": ["a", "b"]} for n in range(5)}
    assert _size("/v1/systemone", state="x" * 500, questions=questions).input >= 5 * (500 + TEMPLATE_TOKENS)
    seen = _size("/v1/systemone", state="x", questions=questions, images=["http://x/y.png"])
    assert seen.input == 5 * CONTEXT


@pytest.mark.parametrize("unseen", ["documents", "chat_template", "prompt_embeds"])
def test_what_the_tokenizer_does_not_see_is_not_counted_without_it(unseen: str) -> None:
    async def ask(path: str, body: bytes) -> tuple[int, bytes]:
        return 200, b'{"count": 7}'

    counter = PromptCounter("base", ask)
    for path, prompt in ((CHAT, {"messages": _message("a")}), (TEXT, {"prompt": "a"})):
        endpoint = ENDPOINTS[path.encode()]
        counted = asyncio.run(counter.count(endpoint, _fields({**prompt, unseen: None})))
        assert counted is not None
        assert counted.total == 7
        assert asyncio.run(counter.count(endpoint, _fields({**prompt, unseen: [{"text": "b"}]}))) is None


@pytest.mark.parametrize(
    ("path", "body", "answers", "wish"),
    [
        (CHAT, {"messages": []}, 1, None),
        (CHAT, {"messages": [], "max_tokens": 5}, 1, 5),
        (CHAT, {"messages": [], "max_tokens": 5, "max_completion_tokens": 9}, 1, 9),
        (CHAT, {"messages": [], "max_tokens": 9, "max_completion_tokens": 5, "n": 3}, 3, 9),
        (CHAT, {"messages": [], "max_tokens": "7", "n": "2"}, 2, 7),
        (CHAT, {"messages": [], "max_output_tokens": 5}, 1, None),
        (TEXT, {"prompt": ["a", "b"], "max_tokens": 4, "n": 2}, 4, 4),
        (TEXT, {"prompt": [[1, 2], [3]], "max_tokens": 4, "best_of": 5, "n": 2}, 10, 4),
        (TEXT, {"prompt": [1, 2, 3], "max_tokens": 4}, 1, 4),
        (BATCH, {"messages": [_message("a"), _message("b"), _message("c")], "max_tokens": 4}, 3, 4),
        ("/v1/responses", {"input": "a", "max_output_tokens": 6}, 1, 6),
        ("/v1/messages", {"messages": [], "max_tokens": 6}, 1, 6),
        ("/v1/embeddings", {"input": ["a", "b"]}, 0, None),
        ("/v1/tokenize", {"prompt": "a"}, 0, None),
    ],
)
def test_answers_and_their_largest_cap_are_counted(
    path: str, body: dict[str, Any], answers: int, wish: int | None
) -> None:
    found = _size(path, **body)
    assert (found.answers, found.wish) == (answers, wish)


def test_each_document_of_a_score_may_fill_the_context() -> None:
    assert _size("/v1/score", text_1="a", text_2=["b", "c", "d"]).input == 3 * CONTEXT
    assert _size("/v1/rerank", query="a", documents=["b", "c"]).input == 2 * CONTEXT


@pytest.mark.parametrize(
    ("given", "capped"),
    [({}, True), ({"max_tokens": None}, True), ({"max_tokens": 3}, False), ({"max_tokens": "x"}, False)],
)
def test_only_an_answer_without_a_cap_is_given_one(given: dict[str, Any], capped: bool) -> None:
    fields = _fields({"messages": [], **given})
    cap(ENDPOINTS[CHAT.encode()], fields, 40)
    assert (bytes(fields.get("max_completion_tokens", b"")) == b"40") is capped
