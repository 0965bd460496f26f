"""Prompts of training against the server's: every answer's own, and the first token that differs."""

from __future__ import annotations

import copy
from importlib.resources import files
from types import SimpleNamespace
from typing import Any

import pytest

from train.proving.probes import CONVERSATIONS, TOOL_ROWS, probes_sha256
from train.proving.prompts import deviation, tool_prompts, training_prompts, whole_ids


class Letters:
    """A tokenizer of single letters with a template of tags; `strict` refuses system messages."""

    eos_token_id: int | None = 0
    chat_template = "tags"

    def __init__(self, *, strict: bool = False) -> None:
        self.all_special_tokens = ["\0"]
        self._strict = strict

    def apply_chat_template(
        self,
        conversation: list[dict[str, str]],
        *,
        tokenize: bool,
        add_generation_prompt: bool,
        tools: Any = None,
    ) -> str:
        del tools  # it shows none
        assert not tokenize
        if self._strict and any(turn["role"] == "system" for turn in conversation):
            raise ValueError("System role not supported")
        text = "".join(f"<{turn['role']}>{turn['content']}\0" for turn in conversation)
        return text + ("<assistant>" if add_generation_prompt else "")

    def __call__(self, text: str, *, add_special_tokens: bool) -> Any:
        assert not add_special_tokens
        return SimpleNamespace(input_ids=[ord(letter) for letter in text])


def test_there_is_a_prompt_before_every_answer() -> None:
    prompts, left_out = training_prompts(CONVERSATIONS, Letters())
    answers = sum(role == "assistant" for one in CONVERSATIONS for role, _ in one)
    assert (len(prompts), left_out) == (answers, [])
    assert len(prompts) > 14
    multi = [prompt for prompt in prompts if len(prompt.messages) > 2]
    assert [turn["role"] for turn in multi[0].messages] == ["user", "assistant", "user"]
    assert "".join(map(chr, multi[0].ids)).endswith("And where does it end?\0<assistant>")


def test_what_the_template_cannot_render_is_left_out_and_told() -> None:
    prompts, left_out = training_prompts(CONVERSATIONS, Letters(strict=True))
    systems = [one for one in CONVERSATIONS if one[0][0] == "system"]
    assert len(left_out) >= len(systems) > 1
    assert left_out[0].startswith("conversation 2: messages[2]: the chat template refuses it: System role")
    assert all(turn["role"] != "system" for prompt in prompts for turn in prompt.messages)
    assert len(whole_ids(CONVERSATIONS, Letters(strict=True))) == len(CONVERSATIONS) - len(systems)


@pytest.mark.parametrize(
    ("change", "position"),
    [
        (lambda ids: [7, *ids], 0),
        (lambda ids: [*ids, 7], -1),
        (lambda ids: [*ids[:5], 7, *ids[6:]], 5),
        (lambda ids: ids[:-1], -2),
    ],
    ids=["a doubled first token", "one too many", "one other", "one missing"],
)
def test_a_deviation_names_its_first_token(change: Any, position: int) -> None:
    prompts, _ = training_prompts(CONVERSATIONS[:1], Letters())
    ids = list(prompts[0].ids)
    found = deviation(0, prompts[0], change(ids))
    assert found is not None
    assert found.position == (position if position >= 0 else len(ids) + position + 1)
    assert deviation(0, prompts[0], ids) is None


def test_the_probes_are_fixed() -> None:
    # A proof names them by this hash: who changes them, on purpose, writes the new one here.
    assert probes_sha256() == "08362cbfe1073ea83837a711d29bbd9a33c0fafb6e9dd9066e3709a3a55942cd"
    assert all(one[-1][0] == "assistant" for one in CONVERSATIONS)


def test_rows_with_tools_are_probes_where_the_template_shows_them(tokenizer: Any) -> None:
    assert tool_prompts(TOOL_ROWS, tokenizer) == ([], [])
    template = copy.copy(tokenizer)
    template.chat_template = files("trl").joinpath("chat_templates", "qwen2_5.jinja").read_text()
    prompts, left_out = tool_prompts(TOOL_ROWS, template)
    assert (len(prompts), left_out) == (5, [])
    assert "<tool_response>" in template.decode(list(prompts[1].ids))
    assert [message["role"] for message in prompts[1].messages] == ["user", "assistant", "tool"]
