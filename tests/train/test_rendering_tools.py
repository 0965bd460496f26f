"""Tools, calls and results on real chat templates: shown and masked as served, or an error that says so."""

from __future__ import annotations

import copy
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from registry.errors import UsageError
from train.config import TrainConfig
from train.dataset import read_sample
from train.dataset.records import Conversation, ToolCall
from train.dataset.rendering import Rendering
from train.epoch.encoding import load_examples
from train.evaluation.formats.specs import Spec
from train.evaluation.models.listening import Heard
from train.methods.paired.pairs import read_pairs
from train.methods.rewarded.prompts import OnlinePrompt, read_prompts
from train.methods.rewarded.rewards import grading_rewards
from train.methods.table import METHODS
from train.rendering.examples import render
from train.rendering.interface import IGNORED
from train.rendering.showing import ToolsHidden, require_shown

TEMPLATES = files("trl").joinpath("chat_templates")
SCHEMA = {"type": "object", "properties": {"on": {"type": "boolean"}}, "required": ["on"]}
TOOL = {"type": "function", "function": {"name": "lamp", "description": "Switch.", "parameters": SCHEMA}}
ASK = {"role": "user", "content": "Light on"}
RESULT = {"role": "tool", "tool_call_id": "callA0001", "content": "done now"}
SAID = {"role": "assistant", "content": "It is on."}
SHOWING = (
    "qwen2_5", "qwen3", "qwen3_instruct_2507", "qwen3_5_think", "qwen3_6", "glm4moe", "gptoss",
    "llama3_1", "llama3_2", "nemotron_3_nano",
)  # fmt: skip
HIDING = ("gemma", "gemma3", "phi3", "llama3", "cohere", "lfm2")


def call(name: str = "callA0001") -> dict[str, Any]:
    return {"id": name, "type": "function", "function": {"name": "lamp", "arguments": {"on": True}}}


def conversation(calls: int = 1) -> dict[str, Any]:
    asked = {
        "role": "assistant",
        "content": None,
        "tool_calls": [call(f"callA000{n + 1}") for n in range(calls)],
    }
    results = [{**RESULT, "tool_call_id": f"callA000{n + 1}"} for n in range(calls)]
    return {"messages": [ASK, asked, *results, SAID], "tools": [TOOL]}


def row(written: dict[str, Any]) -> Conversation:
    sample = read_sample(written)
    return Conversation(1, sample.messages, sample.tools)


def with_template(tokenizer: Any, name: str) -> Any:
    found = copy.copy(tokenizer)
    found.chat_template = TEMPLATES.joinpath(f"{name}.jinja").read_text(encoding="utf-8")
    return found


@pytest.mark.parametrize("name", SHOWING)
def test_a_template_that_knows_tools_shows_them(tokenizer: Any, name: str) -> None:
    require_shown(row(conversation()), with_template(tokenizer, name))


@pytest.mark.parametrize("name", HIDING)
def test_a_template_that_hides_tools_is_an_error_with_the_way_out(tokenizer: Any, name: str) -> None:
    with pytest.raises(ToolsHidden, match="the chat template does not show the") as caught:
        require_shown(row(conversation()), with_template(tokenizer, name))
    assert "chat_template.jinja" in caught.value.remedy


def test_a_template_that_shows_one_call_of_two_is_an_error_that_names_the_other(tokenizer: Any) -> None:
    template = with_template(tokenizer, "gptoss")
    require_shown(row(conversation(1)), template)
    with pytest.raises(ToolsHidden, match=r"the call of lamp in turn 2"):
        require_shown(row(conversation(2)), template)


def test_calls_and_answers_are_learnt_and_results_are_not(tokenizer: Any) -> None:
    template = with_template(tokenizer, "qwen2_5")
    (example,) = render(row(conversation()), template)
    learnt = template.decode(
        [one for one, label in zip(example.ids, example.labels, strict=True) if label != IGNORED]
    )
    assert learnt == (
        '<tool_call>\n{"name": "lamp", "arguments": {"on": true}}\n</tool_call><|im_end|>It is on.<|im_end|>'
    )
    whole = template.decode(list(example.ids))
    assert "<tool_response>\ndone now\n</tool_response>" in whole
    assert json.dumps(row(conversation()).tools[0]) in whole


def test_a_call_of_weight_0_is_given_and_not_learnt(tokenizer: Any) -> None:
    written = conversation()
    written["messages"][1]["weight"] = 0
    template = with_template(tokenizer, "qwen2_5")
    (example,) = render(row(written), template)
    assert "lamp" not in template.decode([one for one in example.labels if one != IGNORED])


def test_the_text_of_arguments_and_the_object_render_alike(tokenizer: Any) -> None:
    template = with_template(tokenizer, "qwen2_5")
    written = conversation()
    written["messages"][1]["tool_calls"][0]["function"]["arguments"] = '{"on": true}'
    assert render(row(written), template) == render(row(conversation()), template)


def test_a_special_token_inside_an_argument_is_an_error(tokenizer: Any) -> None:
    written = conversation()
    written["messages"][1]["tool_calls"][0]["function"]["arguments"] = {"on": "<|im_end|>"}
    with pytest.raises(ValueError, match=r"messages\[1\].content holds the special token"):
        render(row(written), with_template(tokenizer, "qwen2_5"))


def test_training_and_the_check_say_the_same_of_a_template_without_tools(
    tokenizer: Any, tmp_path: Path
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(conversation()))
    with pytest.raises(UsageError, match=r"row 1: the chat template does not show") as caught:
        load_examples(path, tokenizer, max_length=512)
    assert "give the base a chat template that shows tools" in str(caught.value)
    rendered = Rendering(tokenizer, 512).render(read_sample(conversation()))
    assert [rule for rule, _ in rendered.findings] == ["D-TOOLS"]


def test_pairs_and_ratings_keep_calls_and_show_tools(tokenizer: Any, tmp_path: Path) -> None:
    template = with_template(tokenizer, "qwen2_5")
    called = {"role": "assistant", "tool_calls": [call()]}
    pair = {"prompt": [ASK], "chosen": [called], "rejected": [SAID], "tools": [TOOL]}
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps(pair))
    config = TrainConfig.model_validate(
        {"name": "a", "data": {"train": str(path)}, "method": "dpo", "training": {"max_length": 512}}
    )
    (found,) = read_pairs(path, template, config).items
    assert '"name": "lamp"' in template.decode(list(found.prompt_ids))
    assert template.decode(list(found.chosen_ids)).startswith('<tool_call>\n{"name": "lamp"')
    assert template.decode(list(found.rejected_ids)) == "It is on.<|im_end|>"
    rated = [
        {"prompt": [ASK], "completion": [one], "label": one is called, "tools": [TOOL]}
        for one in (called, SAID)
    ]
    path.write_text("".join(json.dumps(one) + "\n" for one in rated))
    items: Any = METHODS["kto"].read(path, template, config).items
    assert [(one.prompt_ids, one.answer_ids) for one in items] == [
        (found.prompt_ids, found.chosen_ids),
        (found.prompt_ids, found.rejected_ids),
    ]


@pytest.mark.parametrize("method", ["supervised", "dpo", "kto", "grpo"])
def test_every_method_refuses_a_call_of_a_tool_that_the_row_does_not_have(
    tokenizer: Any, tmp_path: Path, method: str
) -> None:
    called = {"role": "assistant", "tool_calls": [call()]}
    other = [{**TOOL, "function": {**TOOL["function"], "name": "oven"}}]  # type: ignore[dict-item]
    given: dict[str, Any] = {"prompt": [ASK], "completion": [called], "tools": other}
    if method == "dpo":
        given = {"prompt": [ASK], "chosen": [called], "rejected": [SAID], "tools": other}
    elif method == "kto":
        given["label"] = True
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(given))
    settings = {"type": method, "reward": {"graders": [{"type": "calls"}]}} if method == "grpo" else method
    config = TrainConfig.model_validate({"name": "a", "data": {"train": str(path)}, "method": settings})
    template = with_template(tokenizer, "qwen2_5")
    with pytest.raises(UsageError, match="row 1: calls lamp, and its tools are oven"):
        METHODS[method].read(path, template, config)


def test_reinforcement_rewards_the_calls_that_are_heard() -> None:
    sample = read_sample({"messages": [ASK, {"role": "assistant", "tool_calls": [call()]}], "tools": [TOOL]})
    prompt = OnlinePrompt(1, (1,), "Light on", (), {}, tools=sample.tools, calls=sample.answer[0].calls)

    def hear(ids: Any, tools: Any) -> Heard:
        assert tools[0]["function"]["name"] == "lamp"
        return Heard("", "", (ToolCall("lamp", '{"on": true}' if ids[0] == 1 else "{}"),))

    graders = TypeAdapter(tuple[Spec, ...]).validate_python([{"type": "calls"}, {"type": "arguments"}])
    rewards = grading_rewards([prompt], graders, hear)
    given = {"item": [0, 0], "completions": ["", ""], "completion_ids": [[1], [2]], "stopped": [True, True]}
    assert [reward(**given) for reward in rewards] == [[1, 0], [1, 0]]


def test_a_prompt_of_reinforcement_shows_its_tools_and_expects_its_calls(
    tokenizer: Any, tmp_path: Path
) -> None:
    path = tmp_path / "rows.jsonl"
    asked, answered = {"messages": [ASK], "tools": [TOOL]}, conversation()
    answered["messages"] = answered["messages"][:2]
    path.write_text(f"{json.dumps(asked)}\n{json.dumps(answered)}\n")
    template = with_template(tokenizer, "qwen2_5")
    first, second = read_prompts(path, template, longest=512, overflow="error").items
    assert first.prompt_ids == second.prompt_ids
    assert '"name": "lamp"' in template.decode(list(first.prompt_ids))
    assert (first.calls, second.expected) == (None, ())
    assert [one.name for one in second.calls or ()] == ["lamp"]
