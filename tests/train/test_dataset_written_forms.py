"""The forms that people write are read as they mean them; what is ambiguous or rated bad is never guessed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from train.dataset import RowForm, canonical, read_sample
from train.dataset.forms import RowMapping, read_prompt
from train.dataset.records import Malformed, RowKind

Q, A = {"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}
B = {"role": "assistant", "content": "B"}
S = {"role": "system", "content": "S"}
HUMAN, GPT, BAD = (
    {"from": "human", "value": "Q"},
    {"from": "gpt", "value": "A"},
    {"from": "gpt", "value": "B"},
)
PLAIN = RowMapping()
TEXT = {"type": "text", "text": "Q"}
ASKED = ("prompt", "question", "query", "instruction", "problem", "input", "inputs", "Question", "user")
ANSWERED = (
    "completion",
    "response",
    "answer",
    "output",
    "outputs",
    "target",
    "targets",
    "solution",
    "Answer",
)


def fault(row: object, reading: RowMapping = PLAIN) -> Malformed:
    """Return the fault of a row that must not be read."""
    with pytest.raises(Malformed) as caught:
        read_sample(row, reading)
    return caught.value


@pytest.mark.parametrize("asked", ASKED)
@pytest.mark.parametrize("answered", ANSWERED)
def test_a_question_and_an_answer_are_read_by_the_names_that_people_give_them(
    asked: str, answered: str
) -> None:
    sample = read_sample({asked: "Q", answered: "A", "id": 7})
    assert canonical(sample) == {"messages": [Q, A]}
    assert (sample.form.kind, sample.extra) == (RowKind.SUPERVISED, ("id",))


SUPERVISED: dict[str, tuple[dict[str, Any], list[dict[str, str]]]] = {
    "dolly": (
        {"instruction": "Q", "context": "C", "response": "A", "category": "x"},
        [{"role": "user", "content": "C\n\nQ"}, A],
    ),
    "openorca": ({"id": "1", "system_prompt": "S", "question": "Q", "response": "A"}, [S, Q, A]),
    "squad": (
        {"context": "C", "question": "Q", "answers": {"text": ["A", "a"], "answer_start": [3, 3]}},
        [{"role": "user", "content": "C\n\nQ"}, A],
    ),
    "first of several answers": ({"question": "Q", "answers": ["A", "a"]}, [Q, A]),
    "alpaca with its text": ({"instruction": "Q", "input": "", "output": "A", "text": "Q A"}, [Q, A]),
    "a question in the input": ({"instruction": "", "input": "Q", "output": "A"}, [Q, A]),
    "messages as input": ({"input": [S, Q], "output": "A"}, [S, Q, A]),
    "a message as output": ({"input": [Q], "output": A}, [Q, A]),
    "the answer beside the messages": ({"messages": [S, Q], "response": "A"}, [S, Q, A]),
    "a system prompt beside the messages": ({"system": "S", "messages": [Q, A]}, [S, Q, A]),
    "conversation": ({"conversation": [HUMAN, GPT]}, [Q, A]),
    "roles in conversations": ({"conversations": [Q, A]}, [Q, A]),
    "items": ({"id": "x", "items": [HUMAN, GPT]}, [Q, A]),
    "texts in turn": ({"conversations": ["Q", "A", "Q", "A"]}, [Q, A, Q, A]),
    "pairs in turn": ({"conversation": [{"input": "Q", "output": "A"}]}, [Q, A]),
    "human and assistant": ({"conversation": [{"human": "Q", "assistant": "A"}]}, [Q, A]),
    "messages as JSON in a table": ({"messages": json.dumps([Q, A])}, [Q, A]),
    "messages as Python shows them": ({"messages": str([Q, A])}, [Q, A]),
    "empty columns of a table": (
        {"messages": None, "conversations": None, "prompt": "Q", "completion": "A", "label": None},
        [Q, A],
    ),
    "two ways that say the same": ({"problem": "Q", "solution": "A", "messages": [Q, A]}, [Q, A]),
    "a prompt that the messages have too": ({"prompt": "Q", "prompt_id": "7", "messages": [Q, A]}, [Q, A]),
    "an answer that the messages have": ({"messages": [Q, A], "answer": "A"}, [Q, A]),
    "names in other letters": ({"System Prompt": "S", "Question": "Q", "Answer": "A"}, [S, Q, A]),
    "human and assistant in a text": ({"prompt": "\n\nHuman: Q\n\nAssistant:", "completion": "A"}, [Q, A]),
    "a user's name beside the prompt": ({"prompt": "Q", "completion": "A", "user": "u17"}, [Q, A]),
}  # fmt: skip


@pytest.mark.parametrize("name", SUPERVISED)
def test_every_form_of_an_answer_is_the_same_conversation(name: str) -> None:
    row, messages = SUPERVISED[name]
    assert canonical(read_sample(row)) == {"messages": messages}


PAIRS: dict[str, dict[str, Any]] = {
    "sharegpt": {"conversations": [HUMAN], "chosen": GPT, "rejected": BAD},
    "axolotl chat_template.default": {"messages": [Q], "chosen": A, "rejected": B},
    "axolotl conversation": {"conversation": [Q], "chosen": A, "rejected": B},
    "intel orca without a system prompt": {"system": "", "question": "Q", "chosen": "A", "rejected": "B"},
    "alpaca": {"instruction": "Q", "input": "", "chosen": "A", "rejected": "B"},
    "hh": {"chosen": "\n\nHuman: Q\n\nAssistant: A", "rejected": "\n\nHuman: Q\n\nAssistant: B"},
    "hh with a prompt": {"prompt": "\n\nHuman: Q\n\nAssistant:", "chosen": " A".strip(), "rejected": "B"},
    "llama-factory v1": {"chosen_messages": [Q, A], "rejected_messages": [Q, B]},
    "stack exchange": {"qid": 1, "question": "Q", "response_j": "A", "response_k": "B"},
    "chosen_response": {"prompt": "Q", "chosen_response": "A", "rejected_response": "B"},
    "accepted": {"question": "Q", "accepted": "A", "rejected": "B"},
    "ultrafeedback": {"prompt": "Q", "chosen": [Q, A], "rejected": [Q, B], "messages": [Q, A], "score": 8},
    "argilla": {"input": "Q", "chosen": "A", "rejected": "B", "rating": [9.0, 4.0]},
    "two names of the question": {"prompt": "Q", "question": "Q", "chosen": [Q, A], "rejected": [Q, B]},
    "ms-swift messages": {"messages": [Q, A], "rejected_response": "B"},
    "ms-swift rejected messages": {"messages": [Q, A], "rejected_messages": [Q, B]},
    "ms-swift query": {"query": "Q", "response": "A", "rejected_response": "B"},
    "a table": {"prompt": "Q", "chosen": str([Q, A]), "rejected": str([Q, B])},
    "a prompt that both repeat": {"prompt": [Q], "chosen": [Q, A], "rejected": [Q, B]},
    "openai": {"input": {"messages": [Q]}, "preferred_output": [A], "non_preferred_output": [B]},
}  # fmt: skip


@pytest.mark.parametrize("name", PAIRS)
def test_every_form_of_a_pair_is_the_same_preference(name: str) -> None:
    assert canonical(read_sample(PAIRS[name])) == {"prompt": [Q], "chosen": [A], "rejected": [B]}


def test_a_pair_keeps_its_system_prompt_and_its_input() -> None:
    orca = read_sample({"system": "S", "question": "Q", "chosen": "A", "rejected": "B"})
    assert canonical(orca)["prompt"] == [S, Q]
    alpaca = read_sample({"instruction": "Q", "input": "I", "chosen": "A", "rejected": "B"})
    assert canonical(alpaca)["prompt"] == [{"role": "user", "content": "Q\n\nI"}]


def test_a_pair_whose_conversation_ends_with_another_answer_is_an_error() -> None:
    row = {"messages": [Q, {"role": "assistant", "content": "other"}], "chosen": "A", "rejected": "B"}
    assert "which is not the chosen one" in str(fault(row))


@pytest.mark.parametrize("value", [False, 0, "false", "False", "0", "bad", "thumbs-down", "👎", -1])
@pytest.mark.parametrize("key", ["label", "kto_tag"])
def test_a_label_makes_a_rated_row_of_every_form_of_an_answer(key: str, value: object) -> None:
    for row in ({"messages": [Q, A]}, {"conversations": [HUMAN, GPT]}, {"question": "Q", "answer": "A"}):
        sample = read_sample({**row, key: value})
        assert (sample.form, sample.liked) == (RowForm.KTO, False)
        assert canonical(sample) == {"prompt": [Q], "completion": [A], "label": False}
    assert read_sample({"prompt": "Q", "completion": "A", key: "TRUE"}).liked is True


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("rating", False), ("rating", "bad"), ("liked", False), ("thumbs_up", 0), ("thumbs", "down"),
        ("feedback", "negative"), ("vote", -1), ("desirable", "no"),
    ],
)  # fmt: skip
def test_a_vote_against_the_answer_makes_a_rated_row(key: str, value: object) -> None:
    sample = read_sample({"messages": [Q, A], key: value})
    assert (sample.form, sample.liked, sample.extra) == (RowForm.KTO, False, ())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("is_correct", False), ("correct", "false"), ("accepted", False), ("score", 0), ("reward", -1),
        ("helpful", "no"), ("thumbs_down", True), ("is_bad", 1), ("toxic", True),
        ("verified", False), ("weight", 0), ("meta", {"is_correct": False}),
        ("feedback", {"thumbs_up": False}),
    ],
)  # fmt: skip
def test_another_mark_against_the_answer_is_an_error_unless_it_is_accepted(key: str, value: object) -> None:
    row = {"messages": [Q, A], key: value}
    found = fault(row)
    assert found.rule == "D-RATED"
    assert "--accept D-RATED" in found.remedy
    assert read_sample(row, RowMapping(accept=frozenset({"D-RATED"}))).form is RowForm.CHAT


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("label", "sports"), ("label", 3), ("label", "A"), ("rating", 1), ("rating", 4.5), ("score", 0.2),
        ("is_correct", True), ("thumbs_down", False), ("meta", {"score": 5}), ("weight", 1),
    ],
)  # fmt: skip
def test_a_class_a_number_of_stars_and_praise_leave_the_row_as_it_is(key: str, value: object) -> None:
    sample = read_sample({"messages": [Q, A], key: value})
    assert (sample.form, sample.extra) == (RowForm.CHAT, (key,))


def test_a_mapped_label_must_be_a_rating() -> None:
    reading = RowMapping({"prompt": "q", "completion": "a", "label": "ok"})
    assert read_sample({"q": "Q", "a": "A", "ok": "yes"}, reading).liked is True
    assert "not true or false" in str(fault({"q": "Q", "a": "A", "ok": "perhaps"}, reading))


def test_two_forms_that_say_different_things_are_an_error_that_names_both_and_the_mapping() -> None:
    row = {"problem": "Q", "solution": "A because", "answer": "A"}
    found = fault(row)
    assert found.rule == "D-FORM"
    assert "fits problem/solution and problem/answer, which say different things" in str(found)
    assert "--columns prompt=problem,completion=solution or prompt=problem,completion=answer" in found.remedy
    chosen = read_sample(row, RowMapping({"prompt": "problem", "completion": "answer"}))
    assert canonical(chosen) == {"messages": [Q, A]}
    assert chosen.extra == ("solution",)
    both = fault({"messages": [Q, A], "prompt": "Q", "completion": "B"})
    assert "messages=messages or prompt=prompt,completion=completion" in both.remedy


def test_a_mapping_decides_the_form_whatever_stands_beside_it() -> None:
    row = {
        "prompt": "an id",
        "messages": [Q, B],
        "chosen": "x",
        "rejected": "y",
        "frage": "Q",
        "antwort": "A",
    }
    sample = read_sample(row, RowMapping({"prompt": "frage", "completion": "antwort"}))
    assert canonical(sample) == {"messages": [Q, A]}


@pytest.mark.parametrize(
    ("row", "remedy"),
    [
        ({"frage": "Q", "antwort": "A"}, "prompt=frage,completion=antwort"),
        ({"article": "Q", "highlights": "A", "id": "7"}, "prompt=article,completion=highlights"),
        ({"review_body": "Q", "sentiment": "A"}, "prompt=review_body,completion=sentiment"),
        ({"x": 1, "y": 2}, "prompt=COLUMN,completion=COLUMN"),
    ],
)
def test_keys_that_fit_no_form_are_named_with_the_mapping_that_may_be_meant(
    row: dict[str, object], remedy: str
) -> None:
    found = fault(row)
    assert found.rule == "D-FORM"
    assert str(sorted(row)) in str(found)
    assert f"--columns {remedy}" in found.remedy


MEDIA: dict[str, dict[str, Any]] = {
    "images": {"messages": [Q, A], "images": ["a.jpg"]},
    "image": {"prompt": "Q", "completion": "A", "image": {"bytes": "…"}},
    "audios": {"messages": [Q, A], "audios": ["a.wav"]},
    "videos": {"prompt": "Q", "chosen": "A", "rejected": "B", "videos": ["a.mp4"]},
    "image_url": {"messages": [{"role": "user", "content": [TEXT, {"type": "image_url"}]}, A]},
    "input_audio": {"messages": [{"role": "user", "content": [{"type": "input_audio"}, TEXT]}, A]},
    "in a message": {"messages": [{**Q, "images": ["a.jpg"]}, A]},
    "placeholder": {"messages": [{"role": "user", "content": "<image>What is it?"}, A]},
    "qwen": {"query": "<img>https://x.y/z.jpg</img>What?", "response": "A"},
    "pad": {"prompt": "<|image_pad|>What?", "completion": "A"},
}  # fmt: skip


@pytest.mark.parametrize("name", MEDIA)
def test_media_are_an_error_and_the_text_alone_is_learnt_only_where_that_is_accepted(name: str) -> None:
    assert fault(MEDIA[name]).rule == "D-MEDIA"
    accepted = read_sample(MEDIA[name], RowMapping(accept=frozenset({"D-MEDIA"})))
    assert [rule for rule, _ in accepted.notes] == ["D-MEDIA"]
    assert accepted.messages[-1].content == "A"


@pytest.mark.parametrize(
    "text", ["docker run <image>", "<video>\n<source src='a.mp4'>\n</video>", "the <img> tag", "a <| b"]
)
def test_the_code_of_a_page_and_the_name_of_a_thing_are_no_media(text: str) -> None:
    assert read_sample({"prompt": text, "completion": "A", "images": [], "audio": None}).notes == ()


@pytest.mark.parametrize(
    ("row", "turns"),
    [
        ({"prompt": "Q"}, [Q]),
        ({"question": "Q", "ground_truth": "A"}, [Q]),
        ({"problem": "Q", "system": "S", "is_correct": False}, [S, Q]),
        ({"messages": [Q], "label": False}, [Q]),
        ({"conversations": [HUMAN]}, [Q]),
    ],
)
def test_a_row_that_only_asks_is_a_prompt(row: dict[str, object], turns: list[dict[str, str]]) -> None:
    sample, answered = read_prompt(row)
    assert not answered
    assert [{"role": one.role, "content": one.content} for one in sample.prompt] == turns
    assert read_prompt({"question": "Q", "answer": "A"})[1]
