"""Where an answer begins and ends, on templates that rewrite, refuse, or have ends of their own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from registry.errors import UsageError
from tests.train.bases import ends_of, shipped_templates, speaking
from train.dataset.records import Conversation, RowMessage
from train.epoch.encoding import load_examples
from train.epoch.mixture import mix
from train.rendering.examples import prompt_ids, render
from train.rendering.interface import Unrenderable
from train.rendering.template import template_of
from train.settings.data import DataSettings

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TURNS = (("user", "one?"), ("assistant", "first"), ("user", "two?"), ("assistant", "second"))


def row(*pairs: tuple[str, str], **more: Any) -> Conversation:
    return Conversation(1, tuple(RowMessage(role, text, role == "assistant", **more) for role, text in pairs))


def shipped(folder: Path, name: str) -> Any:
    return speaking(folder / name, shipped_templates()[name], ends_of(name))


def chatml(folder: Path, *ends: str, stops: tuple[str, ...] | None = None) -> Any:
    return speaking(folder / "base", CHATML, ends or ("<|im_end|>",), stops)


def learnt(tokenizer: Any, examples: Any) -> list[str]:
    return [tokenizer.decode([one for one in example.labels if one >= 0]) for example in examples]


def write(folder: Path, *rows: object) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    return path


def chat(*pairs: tuple[str, str]) -> dict[str, object]:
    return {"messages": [{"role": role, "content": content} for role, content in pairs]}


def test_what_ends_an_answer_is_what_the_models_own_file_says(tmp_path: Path) -> None:
    tokenizer = chatml(tmp_path, "<eos>", stops=("<|im_end|>", "<eos>"))
    assert learnt(tokenizer, render(row(*TURNS[:2]), tokenizer)) == ["first<|im_end|>"]


def test_an_end_at_which_the_server_does_not_stop_is_refused_with_the_file_that_names_it(
    tmp_path: Path,
) -> None:
    with pytest.raises(Unrenderable, match=r"ends it with '<.im_end.>'.*stops at <eos>") as caught:
        render(row(*TURNS[:2]), chatml(tmp_path, "<eos>"))
    assert "eos_token_id of the base's generation_config.json" in caught.value.remedy


def test_a_turn_that_only_the_next_turn_ends_is_learnt_with_that_mark(tmp_path: Path) -> None:
    tokenizer = shipped(tmp_path, "glm4moe")
    (example,) = render(row(*TURNS), tokenizer)
    assert learnt(tokenizer, [example]) == [
        "\n<think></think>\nfirst<|user|>\n<think></think>\nsecond<|user|>"
    ]


def test_answers_that_only_extend_each_other_are_one_example_and_rewritten_ones_their_own(
    tmp_path: Path,
) -> None:
    assert len(render(row(*TURNS), chatml(tmp_path))) == 1
    tokenizer = shipped(tmp_path, "qwen3")
    examples = render(row(*TURNS, reasoning="Hm."), tokenizer)
    thought = "<think>\nHm.\n</think>\n\n"
    assert learnt(tokenizer, examples) == [f"{thought}first<|im_end|>", f"{thought}second<|im_end|>"]
    assert thought not in tokenizer.decode(examples[1].ids[: -examples[1].learnt])


@pytest.mark.parametrize("content", ["<think>\nHm.\n</think>\n\nfirst", "first"])
def test_a_thought_that_the_prompt_opens_is_gone_on_with_or_closed_at_once(
    tmp_path: Path, content: str
) -> None:
    tokenizer = shipped(tmp_path, "deepseek_r1_distill")
    (example,) = render(row(TURNS[0], ("assistant", content)), tokenizer)
    thought = "Hm.\n" if "Hm" in content else "\n"
    assert learnt(tokenizer, [example]) == [f"{thought}</think>\n\nfirst<｜end▁of▁sentence｜>"]


def test_only_the_last_answer_is_learnt_on_request(tmp_path: Path) -> None:
    tokenizer = chatml(tmp_path)
    (example,) = load_examples(write(tmp_path, chat(*TURNS)), tokenizer, max_length=64, answers="last").items
    assert tokenizer.decode([one for one in example.labels if one >= 0]) == "second<|im_end|>"


def test_a_row_of_several_examples_is_one_row_and_what_it_repeats_is_counted(tmp_path: Path) -> None:
    tokenizer = shipped(tmp_path, "qwen3")
    found = load_examples(write(tmp_path, chat(*TURNS), chat(*TURNS[:2])), tokenizer, max_length=128)
    report = found.report
    assert (report.rows, report.examples, [item.row for item in found.items]) == (2, 3, [1, 1, 2])
    first, second = found.items[0].input_ids, found.items[1].input_ids
    assert second[: report.repeated_tokens] == first[: report.repeated_tokens]
    assert second[report.repeated_tokens] != first[report.repeated_tokens]


def test_a_limit_takes_whole_rows_with_all_of_their_examples(tmp_path: Path) -> None:
    tokenizer = shipped(tmp_path, "qwen3")
    path = write(tmp_path, *[chat(*TURNS)] * 4)
    found = load_examples(path, tokenizer, max_length=128)
    settings = DataSettings.model_validate({"train": [{"path": str(path), "name": "a", "limit": 3}]})
    mixture = mix({"a": found}, settings, seed=0)
    assert (len(mixture.items), mixture.shares["a"].rows, mixture.shares["a"].available) == (6, 3, 4)


def test_an_answer_that_max_length_cuts_off_leaves_the_others_of_its_row(tmp_path: Path) -> None:
    tokenizer = shipped(tmp_path, "qwen3")
    long = [*TURNS[:2], ("user", "two? " * 60), TURNS[3]]
    (example,) = load_examples(write(tmp_path, chat(*long)), tokenizer, max_length=48).items
    assert (example.row, example.truncated) == (1, True)


@pytest.mark.parametrize(
    ("pairs", "remedy"),
    [
        ((("system", "S"), *TURNS), "put the system's text into the first user turn"),
        ((TURNS[0], TURNS[0], TURNS[1]), "join turns of one role"),
    ],
)
def test_a_refusal_of_the_template_names_the_way_out(tmp_path: Path, pairs: Any, remedy: str) -> None:
    tokenizer = shipped(tmp_path, "gemma")
    with pytest.raises(UsageError) as caught:
        load_examples(write(tmp_path, chat(*pairs)), tokenizer, max_length=64)
    assert "row 1: messages[" in str(caught.value)
    assert remedy in str(caught.value)


@pytest.mark.parametrize(
    "template",
    ["{{ messages[0].nothing.at_all }}", "{% for %}", "{{ 1 / 0 }}", "{{ messages.append(1) }}", "{{ f() }}"],
)
def test_a_template_that_breaks_is_an_error_with_the_row(tmp_path: Path, template: str) -> None:
    tokenizer = speaking(tmp_path / "base", template, ("<|im_end|>",))
    with pytest.raises(UsageError, match=r"row 1: messages\[1\]: the chat template refuses it"):
        load_examples(write(tmp_path, chat(*TURNS)), tokenizer, max_length=64)


def test_an_answer_before_any_question_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match='begin with the user\'s turn, or give that answer "weight": 0'):
        load_examples(write(tmp_path, chat(*TURNS[1:])), chatml(tmp_path), max_length=64)


def test_of_several_templates_the_one_is_taken_that_the_server_takes(tmp_path: Path) -> None:
    tokenizer = chatml(tmp_path)
    tokenizer.chat_template = {"default": CHATML, "tool_use": f"tools{CHATML}"}
    question = [RowMessage("user", "one?", learn=False)]
    assert not tokenizer.decode(prompt_ids(question, tokenizer)).startswith("tools")
    assert tokenizer.decode(prompt_ids(question, tokenizer, [{"type": "function"}])).startswith("tools")
    tokenizer.chat_template = {"rag": CHATML}
    with pytest.raises(Unrenderable, match="has the chat templates rag and none is the default"):
        template_of(tokenizer)


def test_a_thoughts_marks_may_stand_in_an_answer_and_nowhere_else_if_they_are_special(tmp_path: Path) -> None:
    tokenizer = speaking(tmp_path / "base", CHATML, ("<|im_end|>", "<think>", "</think>"), ("<|im_end|>",))
    said = "<think>Hm.</think>first"
    assert learnt(tokenizer, render(row(TURNS[0], ("assistant", said)), tokenizer)) == [f"{said}<|im_end|>"]
    with pytest.raises(Unrenderable, match=r"messages\[0\].content holds the special token <think>"):
        render(row(("user", said), TURNS[1]), tokenizer)
