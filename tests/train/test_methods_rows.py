"""Rows become the ids that each method trains on, or are refused by their number; no torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from registry.errors import UsageError
from train.config import TrainConfig
from train.epoch.encoding import IGNORED, render
from train.epoch.rows import Conversation, RowMessage
from train.methods import METHODS
from train.methods.paired.kto import RatedAnswer, with_other_answers
from train.methods.paired.pairs import Pair, read_pairs
from train.methods.rewarded.prompts import OnlinePrompt, read_prompts
from train.methods.rewarded.reward_model import RECORD, check_reward_folder, scoring_pad
from train.methods.rewarded.rewards import grading_rewards

QUESTION = "Which colour?"


def write(tmp_path: Path, *rows: object) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def config(method: Any, **changes: Any) -> TrainConfig:
    return TrainConfig.model_validate(
        {"name": "a", "data": {"train": "rows.jsonl"}, "method": method, **changes}
    )


def pair(chosen: str = "green", rejected: str = "red", prompt: str = QUESTION) -> dict[str, str]:
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def server_ids(tokenizer: Any, content: str) -> list[int]:
    chat = [{"role": "user", "content": content}]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    return list(tokenizer(text, add_special_tokens=False).input_ids)


def text_of(tokenizer: Any, ids: Any) -> str:
    return str(tokenizer.decode(list(ids)))


def test_a_pair_holds_the_servers_prompt_and_two_answers_that_end(tmp_path: Path, tokenizer: Any) -> None:
    (found,) = read_pairs(write(tmp_path, pair()), tokenizer, config("dpo")).items
    assert list(found.prompt_ids) == server_ids(tokenizer, QUESTION)
    assert text_of(tokenizer, found.chosen_ids) == f"green{tokenizer.eos_token}"
    assert text_of(tokenizer, found.rejected_ids) == f"red{tokenizer.eos_token}"
    assert (found.row, found.truncated) == (1, False)


def test_a_pair_trains_on_the_same_ids_as_supervised_training(tmp_path: Path, tokenizer: Any) -> None:
    (found,) = read_pairs(write(tmp_path, pair()), tokenizer, config("dpo")).items
    turns = (RowMessage("user", QUESTION, learn=False), RowMessage("assistant", "green", learn=True))
    (example,) = render(Conversation(1, turns), tokenizer)
    learnt = [one for one, label in zip(example.ids, example.labels, strict=True) if label != IGNORED]
    assert list(found.chosen_ids) == learnt
    assert example.ids == found.prompt_ids + found.chosen_ids


@pytest.mark.parametrize(
    ("row", "fact"),
    [
        (pair("green", "green"), "chosen and rejected are the same text"),
        ({"prompt": QUESTION, "completion": "green"}, "which this method does not take"),
        ({**pair(), "rejected": [{"role": "user", "content": "red"}]}, "an answer of the turns user"),
        (pair("green <|im_end|>"), "holds the special token"),
        ({"prompt": QUESTION, "chosen": "green"}, "has the keys"),
    ],
)
def test_a_bad_pair_is_an_error_that_names_its_row(
    tmp_path: Path, tokenizer: Any, row: Any, fact: str
) -> None:
    path = write(tmp_path, pair(), row)
    with pytest.raises(UsageError, match=rf"rows\.jsonl row 2: .*{fact}"):
        read_pairs(path, tokenizer, config("dpo"))


def test_a_difference_behind_max_length_is_an_error(tmp_path: Path, tokenizer: Any) -> None:
    prompt = len(server_ids(tokenizer, QUESTION))
    path = write(tmp_path, pair("one two three green", "one two three red"))
    limited = config("dpo", training={"max_length": prompt + 2})
    with pytest.raises(UsageError, match="row 1: chosen and rejected differ only behind max_length"):
        read_pairs(path, tokenizer, limited)


@pytest.mark.parametrize("kind", ["dpo", "kto"])
def test_a_prompt_that_fills_max_length_is_an_error(tmp_path: Path, tokenizer: Any, kind: str) -> None:
    prompt = len(server_ids(tokenizer, QUESTION))
    limited = config(kind, training={"max_length": prompt})
    with pytest.raises(UsageError, match=f"row 1: an answer begins at token {prompt + 1}"):
        METHODS[kind].read(write(tmp_path, pair()), tokenizer, limited)


@pytest.mark.parametrize("kind", ["dpo", "orpo", "kto", "reward"])
def test_long_rows_are_dropped_by_number_or_refused_as_the_config_says(
    tmp_path: Path, tokenizer: Any, kind: str
) -> None:
    path = write(tmp_path, pair(), pair("green " * 40), pair("blue"))
    base: dict[str, Any] = {"training": {"max_length": 60}}
    drop = config(kind, data={"train": "rows.jsonl", "overflow": "drop"}, **base)
    assert METHODS[kind].read(path, tokenizer, drop).dropped == (2,)
    refuse = config(kind, data={"train": "rows.jsonl", "overflow": "error"}, **base)
    with pytest.raises(UsageError, match=r"row 2: has \d+ tokens, over max_length 60"):
        METHODS[kind].read(path, tokenizer, refuse)
    cut = METHODS[kind].read(path, tokenizer, config(kind, **base))
    assert cut.report.truncated == (2,)


def test_ratings_keep_their_label_and_a_pair_is_one_of_each(tmp_path: Path, tokenizer: Any) -> None:
    rated = {"prompt": QUESTION, "completion": "blue", "label": False}
    found = METHODS["kto"].read(write(tmp_path, rated, pair()), tokenizer, config("kto")).items
    told = [
        (one.row, text_of(tokenizer, one.answer_ids[:-1]), one.liked)
        for one in found
        if isinstance(one, RatedAnswer)
    ]
    assert told == [(1, "blue", False), (2, "green", True), (2, "red", False)]


def test_no_row_of_a_batch_estimates_the_distance_with_its_own_answer() -> None:
    batch = [{"completion_ids": [n], "other_ids": [9]} for n in range(3)]
    assert [row["KL_completion_ids"] for row in with_other_answers(batch)] == [[2], [0], [1]]
    assert with_other_answers(batch[:1])[0]["KL_completion_ids"] == [9]


def test_kto_refuses_batches_and_files_of_one(tmp_path: Path, tokenizer: Any) -> None:
    with pytest.raises(UsageError, match="kto compares the rows of a batch"):
        METHODS["kto"].check(config("kto", training={"batch_size": 1}))
    rated = {"prompt": QUESTION, "completion": "blue", "label": False}
    with pytest.raises(UsageError, match="holds a single answer"):
        METHODS["kto"].read(write(tmp_path, rated), tokenizer, config("kto"))


def test_label_smoothing_that_no_loss_reads_is_refused() -> None:
    with pytest.raises(ValueError, match="label_smoothing is read by loss: robust only, not by sigmoid"):
        config({"type": "dpo", "label_smoothing": 0.1})
    assert config({"type": "dpo", "label_smoothing": 0.1, "loss": "robust"}).method.type == "dpo"


def test_a_reward_model_starts_from_the_base_as_a_plain_lora() -> None:
    with pytest.raises(UsageError, match="a reward model starts from the base"):
        METHODS["reward"].check(config("reward", **{"from": "other@1"}))
    with pytest.raises(UsageError, match=r"lora\.kind is full"):
        METHODS["reward"].check(config("reward", lora={"kind": "full"}))
    assert not METHODS["reward"].servable


def test_the_reward_is_not_read_at_padding_that_ends_turns(tokenizer: Any) -> None:
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    assert scoring_pad(tokenizer) != tokenizer.eos_token_id


@pytest.mark.parametrize("kind", ["rloo", "grpo"])
def test_a_step_must_hold_whole_groups_of_answers(kind: str) -> None:
    with pytest.raises(UsageError, match=r"6 answers.*not a multiple of method\.answers 4") as caught:
        METHODS[kind].check(online(kind, training={"batch_size": 6}))
    assert "set batch_size to 8" in str(caught.value)
    METHODS[kind].check(online(kind, training={"batch_size": 2, "accumulation": 4}))


def online(kind: str, graders: Any = (), **changes: Any) -> TrainConfig:
    reward = {"graders": list(graders) or [{"type": "exact"}]}
    return config({"type": kind, "reward": reward, "answers": 4}, **changes)


@pytest.mark.parametrize(
    ("grader", "why"),
    [
        ({"type": "judge", "model": "base"}, "asks a served model"),
        ({"type": "perplexity"}, "judges the expected answer"),
        ({"type": "agreement"}, "judges pairs of items"),
        ({"type": "bleu"}, "whole corpus"),
        ({"type": "python", "file": "grade.py"}, "has no `source`"),
    ],
)
def test_a_grader_that_cannot_reward_an_answer_is_refused(grader: Any, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        METHODS["grpo"].check(online("grpo", [grader]))


def test_dropout_and_answers_without_room_are_refused_in_reinforcement() -> None:
    with pytest.raises(UsageError, match="answers are weighed without noise"):
        METHODS["rloo"].check(online("rloo", lora={"dropout": 0.1}))
    with pytest.raises(UsageError, match="leaves no room for a prompt"):
        METHODS["rloo"].check(online("rloo", training={"max_length": 256}))


def test_a_folder_that_is_no_reward_model_is_refused_by_its_path(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a reward model"):
        check_reward_folder(tmp_path)
    (tmp_path / RECORD).write_text('{"format": "something"}')
    with pytest.raises(UsageError, match="is not a reward model"):
        check_reward_folder(tmp_path)


def test_prompts_come_from_questions_alone_and_from_answered_rows(tmp_path: Path, tokenizer: Any) -> None:
    turns = [{"role": "user", "content": QUESTION}]
    path = write(
        tmp_path,
        {"messages": turns, "unit": "m"},
        {"prompt": QUESTION},
        {"prompt": QUESTION, "completion": "green"},
        {"messages": [*turns, {"role": "assistant", "content": "blue"}]},
    )
    found = read_prompts(path, tokenizer, longest=64, overflow="truncate").items
    assert {one.prompt_ids for one in found} == {tuple(server_ids(tokenizer, QUESTION))}
    assert [one.expected for one in found] == [(), (), ("green",), ("blue",)]
    assert [one.question for one in found] == [QUESTION] * 4
    assert dict(found[0].data) == {"unit": "m"}


def test_supervised_training_still_refuses_a_row_without_an_answer(tmp_path: Path, tokenizer: Any) -> None:
    path = write(tmp_path, {"messages": [{"role": "user", "content": QUESTION}]})
    with pytest.raises(UsageError, match="row 1: has no assistant message to learn from"):
        METHODS["supervised"].read(path, tokenizer, config("supervised"))


def test_a_prompt_is_dropped_or_refused_but_never_cut(tmp_path: Path, tokenizer: Any) -> None:
    path = write(tmp_path, {"prompt": QUESTION}, {"prompt": "long " * 50})
    with pytest.raises(UsageError, match=r"row 2: its prompt has \d+ tokens, and 60 leave room"):
        read_prompts(path, tokenizer, longest=60, overflow="truncate")
    assert read_prompts(path, tokenizer, longest=60, overflow="drop").dropped == (2,)


def test_a_row_without_what_a_grader_expects_is_named(tmp_path: Path, tokenizer: Any) -> None:
    path = write(tmp_path, {"prompt": QUESTION, "completion": "green"}, {"prompt": QUESTION})
    with pytest.raises(UsageError, match=r"rows\.jsonl row 2: gives no answer, which grader exact needs"):
        METHODS["grpo"].read(path, tokenizer, online("grpo"))


def test_graders_reward_an_answer_as_they_grade_it() -> None:
    prompts = [
        OnlinePrompt(1, (1,), QUESTION, ("green",), {"unit": "m"}),
        OnlinePrompt(2, (1,), QUESTION, ("red",), {}),
    ]
    source = "def grade(sample, item):\n    return 1.0 if item.get('unit') == 'm' else 0.25\n"
    found = online("grpo", [{"type": "exact"}, {"type": "stops"}, {"type": "python", "source": source}])
    assert found.method.type == "grpo"
    rewards = grading_rewards(prompts, found.method.reward.graders)
    given = {
        "item": [0, 0, 1],
        "completions": ["green", "red", "red"],
        "completion_ids": [[5], [6], [6]],
        "stopped": [True, False, True],
    }
    assert [reward(**given) for reward in rewards] == [[1, 0, 1], [1, 0, 1], [1, 1, 0.25]]
    assert [reward.__name__ for reward in rewards] == ["exact", "stops", "python"]


def test_pairs_count_both_answers_as_learnt() -> None:
    assert Pair(1, (1, 2), (3,), (4, 5, 6), truncated=False).learnt == 4
    assert Pair(1, (1, 2), (3,), (4, 5, 6), truncated=False).length == 5
