"""Rows as well-known data sets have them: bookkeeping in turns, roles in capitals, calls in the text."""

from __future__ import annotations

from typing import Any

import pytest

from train.dataset.forms import read_sample
from train.dataset.records import CanonicalRow, Malformed

ASKED = {"role": "user", "content": "one?"}
ANSWERED = {"role": "assistant", "content": "first"}


def sample(row: dict[str, Any]) -> CanonicalRow:
    return read_sample(row)


def turns(row: dict[str, Any]) -> list[tuple[str, str, bool]]:
    return [(turn.role, turn.content, turn.learn) for turn in sample(row).messages]


def test_bookkeeping_of_a_turn_is_told_and_not_refused() -> None:
    logged = {**ASKED, "country": "US", "toxic": False, "header": {"accept-language": "en"}}
    found = sample({"conversation": [logged, {**ANSWERED, "markdown": "**first**"}]})
    assert [turn.ignored for turn in found.messages] == [("country", "header", "toxic"), ("markdown",)]


@pytest.mark.parametrize(
    "key", ["contnet", "image", "tool_call", "wieght", "mask", "rejected", "reasoning_contents"]
)
def test_a_key_of_a_turn_that_may_mean_something_is_refused(key: str) -> None:
    with pytest.raises(Malformed):
        sample({"messages": [ASKED, {**ANSWERED, key: "x"}]})


def test_loss_of_a_turn_says_whether_it_is_learnt() -> None:
    row = {"messages": [ASKED, {**ANSWERED, "loss": False}, ASKED, {**ANSWERED, "loss": True}]}
    assert [learn for role, _, learn in turns(row) if role == "assistant"] == [False, True]


@pytest.mark.parametrize(
    ("asks", "answers"), [("User", "Chatbot"), ("USER", "Assistant"), ("prompter", "bot")]
)
def test_roles_are_read_whatever_their_case(asks: str, answers: str) -> None:
    row = {"messages": [{"role": asks, "content": "one?"}, {"role": answers, "content": "first"}]}
    assert turns(row) == [("user", "one?", False), ("assistant", "first", True)]


@pytest.mark.parametrize(
    "call", ["[f(a=1)]", "Thought: f\nAction: f\nAction Input: {}", '{"name": "f", "arguments": {}}']
)
def test_the_result_of_a_call_in_a_text_has_its_call(call: str) -> None:
    said = [("user", "one?"), ("assistant", call), ("tool", "{}"), ("assistant", "first")]
    found = sample({"conversations": [{"from": sender, "value": text} for sender, text in said]})
    assert "D-RESULT" not in [rule for rule, _ in found.notes]


def test_a_result_behind_plain_words_has_none() -> None:
    said = [("user", "one?"), ("assistant", "Let me see."), ("tool", "{}"), ("assistant", "first")]
    found = sample({"conversations": [{"from": sender, "value": text} for sender, text in said]})
    assert "D-RESULT" in [rule for rule, _ in found.notes]


def test_openais_evals_are_prompts_with_their_ideal_answer() -> None:
    assert turns({"input": [ASKED], "ideal": "first"}) == [
        ("user", "one?", False),
        ("assistant", "first", True),
    ]


def test_a_message_of_a_tree_is_no_document() -> None:
    row = {"message_id": "a", "parent_id": "b", "role": "prompter", "text": "one?"}
    with pytest.raises(Malformed, match="one message of a tree"):
        sample(row)


@pytest.mark.parametrize("answer", [42, 1.5, True])
def test_an_answer_that_is_no_text_names_the_mapping_that_takes_it(answer: object) -> None:
    with pytest.raises(Malformed) as caught:
        sample({"question": "one?", "answer": answer})
    assert caught.value.remedy.endswith("--columns completion=answer")


def test_a_mark_of_a_row_is_not_offered_as_its_answer() -> None:
    row = {"instruction": "one?", "instances": [{"input": "", "output": "first"}], "is_classification": False}
    with pytest.raises(Malformed) as caught:
        sample(row)
    assert "is_classification" not in caught.value.remedy
