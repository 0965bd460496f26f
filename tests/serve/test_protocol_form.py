"""A request leaves the form of its answer to the version only where none of its own fields decides it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from msgspec import Raw

from serve.protocol.form import HARMLESS, LEAST_TOKENS, generates, leaves_form

CHAT: dict[str, Any] = {"model": "support", "messages": [{"role": "user", "content": "Hello"}]}


def fields(**body: Any) -> dict[str, Raw]:
    return msgspec.json.decode(msgspec.json.encode({**CHAT, **body}), type=dict[str, Raw])


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"stream": True, "stream_options": {"include_usage": True}, "user": "ann", "metadata": {"a": "b"}},
        {"temperature": 0, "top_p": 0.9, "seed": 7, "n": 1, "max_tokens": LEAST_TOKENS},
        {
            "temperature": 1.0,
            "max_completion_tokens": 4_096,
            "frequency_penalty": 0.0,
            "presence_penalty": 0,
            "top_k": 40,
            "min_p": 0.05,
            "repetition_penalty": 1.1,
        },
        {"logit_bias": {}, "stop": [], "response_format": {"type": "text"}, "echo": False},
        {"tools": [{"type": "function"}], "tool_choice": "auto", "parallel_tool_calls": True},
        {"max_tokens": 1_024, "system": "Be short.", "thinking": {"type": "disabled"}, "stop_sequences": []},
        {"input": "Hello", "instructions": "Be short.", "max_output_tokens": 64, "store": True},
        {"input": [{"role": "user", "content": "Hello"}], "text": {"format": {"type": "text"}}},
        {"input": [], "text": {"verbosity": "low"}, "background": False, "truncation": "disabled"},
    ],
    ids=str,
)
def test_an_ordinary_request_leaves_the_form_to_the_version(body: dict[str, Any]) -> None:
    assert leaves_form(fields(**body))
    assert generates(fields(**body))


@pytest.mark.parametrize("name", [*HARMLESS, "structured_outputs", "a_field_of_a_later_release"])
def test_null_asks_for_nothing(name: str) -> None:
    assert leaves_form(fields(**{name: None}))


@pytest.mark.parametrize(
    "body",
    [
        {"structured_outputs": {"regex": " "}},
        {"structured_outputs": {"choice": [" "]}},
        {"response_format": {"type": "json_object"}},
        {"response_format": {"type": "structural_tag"}},
        {"text": {"format": {"type": "json_schema", "schema": {}}}},
        {"output_config": {"format": {"type": "json_schema"}}},
        {"max_tokens": 1},
        {"max_tokens": LEAST_TOKENS - 1},
        {"max_completion_tokens": 2},
        {"max_output_tokens": 1},
        {"max_tokens": "64"},
        {"min_tokens": 50},
        {"stop": " "},
        {"stop": ["a", "e"]},
        {"stop_sequences": ["e"]},
        {"stop_token_ids": [1]},
        {"ignore_eos": True},
        {"include_stop_str_in_output": True},
        {"logit_bias": {"2": 100}},
        {"allowed_token_ids": [2]},
        {"bad_words": ["a"]},
        {"min_p": 2.0},
        {"top_k": -5},
        {"temperature": 1.5},
        {"temperature": -1},
        {"temperature": True},
        {"frequency_penalty": 2},
        {"presence_penalty": 1.5},
        {"repetition_penalty": 1.5},
        {"repetition_detection": {"max_pattern_size": 1}},
        {"n": 2},
        {"best_of": 2},
        {"use_beam_search": True},
        {"echo": True},
        {"suffix": "}"},
        {"continue_final_message": True},
        {"add_generation_prompt": False},
        {"add_special_tokens": False},
        {"skip_special_tokens": False},
        {"chat_template": "x"},
        {"chat_template_kwargs": {"enable_thinking": True}},
        {"truncate_prompt_tokens": 1},
        {"prompt_embeds": "x"},
        {"vllm_xargs": {"x": 1}},
        {"thinking": {"type": "enabled", "budget_tokens": 1}},
        {"thinking_token_budget": 1},
        {"tool_choice": "required"},
        {"tool_choice": {"type": "function", "function": {"name": "f"}}},
        {"input": [{"type": "message", "role": "assistant", "status": "in_progress"}]},
        {"input": [{"type": "reasoning", "status": "incomplete"}]},
        {"a_field_of_a_later_release": 0},
    ],
    ids=str,
)
def test_a_field_that_decides_the_form_takes_it_from_the_version(body: dict[str, Any]) -> None:
    assert not leaves_form(fields(**body))


@pytest.mark.parametrize("raw", [b"0", b"-0", b"0.0", b'"0"', b"false", b"-1", b"[]"])
@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens", "max_output_tokens"])
def test_who_asks_for_no_token_gets_no_answer_of_a_version(name: str, raw: bytes) -> None:
    assert not generates({"model": Raw(b'"support"'), name: Raw(raw)})
    assert generates({"model": Raw(b'"support"'), name: Raw(b"1")})
