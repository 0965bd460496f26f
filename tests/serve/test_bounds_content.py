"""What a body asks to be worked on: how much of it, and where text lies."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from msgspec import Raw

from registry.errors import WardrobeError
from serve.bounds.content import ContentLimits, check_content
from serve.bounds.grammars import GrammarLimits
from serve.errors import PromptTooLong, TooComplex

LIMITS = ContentLimits(
    messages=10,
    parts=20,
    tools=5,
    choices=4,
    grammars=GrammarLimits(bytes=1_000, pattern_bytes=100, loops=8, properties=10, repetitions=100),
    prompt_characters=1_000,
    text_characters=4_000,
)
LONG = "x" * 1_001
PICTURE = "data:image/png;base64," + "A" * 1_000_000


def check(*, fits: bool = True, limits: ContentLimits = LIMITS, **body: Any) -> None:
    check_content(msgspec.json.decode(json.dumps(body), type=dict[str, Raw]), limits, fits=fits)


def refusal(**body: Any) -> tuple[type[WardrobeError], str | None]:
    """Return the class of the refusal and the field that it names."""
    with pytest.raises(WardrobeError) as caught:
        check(**body)
    return type(caught.value), caught.value.param


def user(content: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": content}]


@pytest.mark.parametrize(
    "body",
    [
        {"messages": user("x" * 1_000)},
        {
            "messages": user(
                [{"type": "image_url", "image_url": {"url": PICTURE}}, {"type": "text", "text": "?"}]
            )
        },
        {"messages": user([{"type": "input_audio", "input_audio": {"data": "A" * 9_999, "format": "wav"}}])},
        {"messages": user([{"type": "image", "source": {"type": "base64", "data": "A" * 9_999}}])},
        {"messages": user([{"type": "image_embeds", "image_embeds": "A" * 9_999}])},
        {"input": user([{"type": "input_image", "image_url": PICTURE}])},
        {"input": user([{"type": "input_file", "file_data": PICTURE, "filename": "a.pdf"}])},
        {"prompt_embeds": "A" * 9_999, "prompt": ""},
        {"messages": [{"role": "assistant", "content": "a", "reasoning_content": LONG}, *user("b")]},
        {"prompt": ["x" * 900] * 4},
        {"prompt": list(range(5_000))},
        {"prompt": [list(range(50))] * 10},
        {"input": ["x" * 900] * 4},
        {
            "messages": user("hi"),
            "tools": [{"type": "function", "function": {"name": "f", "description": LONG}}],
        },
        {"messages": user("hi"), "metadata": {"note": LONG}},
        {"messages": [user("x" * 900), user("y" * 900)]},
        {"messages": "no list", "prompt": None, "tools": 5},
        *({"prompt": "a", "n": n} for n in (4, 4.0, "4", True, None, "many", "²", 4.5, [9], -1)),
    ],
)
def test_what_can_fit_passes_wherever_its_text_and_its_media_stand(body: dict[str, Any]) -> None:
    check(**body)


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ({"messages": user(LONG)}, "messages"),
        ({"messages": user([{"type": "text", "text": LONG}])}, "messages"),
        ({"messages": [{"role": "tool", "tool_call_id": "1", "content": LONG}]}, "messages"),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"function": {"arguments": LONG}}]}]},
            "messages",
        ),
        (
            {"messages": user([{"type": "tool_result", "content": [{"type": "text", "text": LONG}]}])},
            "messages",
        ),
        ({"messages": [user(LONG)]}, "messages"),
        ({"messages": user("é" * 1_001)}, "messages"),
        ({"messages": user("x" * 600) * 2}, "messages"),
        ({"system": "x" * 600, "messages": user("x" * 600)}, "messages"),
        ({"instructions": "x" * 600, "input": "x" * 600}, "input"),
        ({"prompt": LONG}, "prompt"),
        ({"prompt": ["a", LONG]}, "prompt"),
        ({"input": [{"type": "function_call_output", "call_id": "1", "output": LONG}]}, "input"),
        ({"text_1": "a", "text_2": [LONG]}, "text_2"),
        ({"query": "a", "documents": [LONG]}, "documents"),
    ],
)
def test_a_prompt_that_no_tokens_can_bring_into_the_context_is_refused(
    body: dict[str, Any], name: str
) -> None:
    assert refusal(**body) == (PromptTooLong, name)


def test_what_is_only_counted_need_not_fit_and_is_bounded_all_the_same() -> None:
    check(prompt=LONG, fits=False)
    with pytest.raises(PromptTooLong, match="max_text_characters"):
        check(prompt="x" * 4_001, fits=False)
    with pytest.raises(PromptTooLong, match="8000 characters of text"):
        check(prompt=["x" * 800] * 10)


def test_an_engine_that_cannot_say_what_fits_bounds_the_text_alone() -> None:
    unknown = replace(LIMITS, prompt_characters=None)
    check(prompt=LONG, limits=unknown)
    with pytest.raises(PromptTooLong):
        check(prompt="x" * 4_001, limits=unknown)


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ({"messages": user("a") * 11}, "messages"),
        ({"messages": [user("a") * 11]}, "messages"),
        ({"messages": [user("a")] * 11}, "messages"),
        ({"input": user("a") * 11}, "input"),
        ({"input": ["a"] * 11}, "input"),
        ({"prompt": ["a"] * 11}, "prompt"),
        ({"messages": user([{"type": "text", "text": "a"}] * 21)}, "messages"),
        ({"messages": user([{"type": "text", "text": "a"}] * 11) * 2}, "messages"),
        ({"messages": [{"role": "assistant", "tool_calls": [{}] * 21}]}, "messages"),
        ({"tools": [{}] * 6}, "tools"),
        *(({"prompt": "a", "n": n}, "n") for n in (5, 10_000.0, "10000", " 1_0.0 ", 1e30, "1e9")),
        ({"messages": user("a"), "best_of": "5"}, "best_of"),
        ({"structured_outputs": {"regex": "a" * 1_000}}, "structured_outputs"),
        ({"structured_outputs": {"choice": ["a"] * 500}}, "structured_outputs"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": {"x": LONG}}}},
            "response_format",
        ),
        ({"text": {"format": {"schema": {"x": LONG}}}}, "text"),
        ({"output_config": {"format": {"schema": {"x": LONG}}}}, "output_config"),
    ],
)
def test_more_of_anything_than_a_request_may_hold_is_refused(body: dict[str, Any], name: str) -> None:
    assert refusal(**body) == (TooComplex, name)
