"""Every written form becomes the same canonical row, and what cannot be read is an error in words."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.errors import UsageError
from train.dataset import CanonicalRow, RowForm, canonical, read_sample
from train.dataset.checks.findings import CATALOGUE
from train.dataset.records import Malformed
from train.dataset.sources import read_lines
from train.epoch.rows import read_rows

QUESTION = {"role": "user", "content": "Q"}
ANSWER = {"role": "assistant", "content": "A"}
SYSTEM = {"role": "system", "content": "S"}
SUPERVISED: list[tuple[dict[str, object], RowForm, list[dict[str, str]]]] = [
    ({"messages": [QUESTION, ANSWER], "tools": []}, RowForm.CHAT, [QUESTION, ANSWER]),
    (
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "Q"}]}, ANSWER]},
        RowForm.CHAT,
        [QUESTION, ANSWER],
    ),
    (
        {"conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}], "system": "S"},
        RowForm.SHAREGPT,
        [SYSTEM, QUESTION, ANSWER],
    ),
    ({"conversations": [QUESTION, ANSWER]}, RowForm.SHAREGPT, [QUESTION, ANSWER]),
    ({"instruction": "Q", "input": "", "output": "A", "id": 7}, RowForm.ALPACA, [QUESTION, ANSWER]),
    (
        {"instruction": "Q", "input": "I", "output": "A"},
        RowForm.ALPACA,
        [{"role": "user", "content": "Q\n\nI"}, ANSWER],
    ),
    (
        {"instruction": "Q", "output": "A", "history": [["Q", "A"]]},
        RowForm.ALPACA,
        [QUESTION, ANSWER, QUESTION, ANSWER],
    ),
    ({"prompt": "Q", "completion": "A"}, RowForm.PROMPT, [QUESTION, ANSWER]),
    (
        {"prompt": "Q", "completion": "A", "context": "C"},
        RowForm.PROMPT,
        [{"role": "user", "content": "C\n\nQ"}, ANSWER],
    ),
    ({"prompt": [SYSTEM, QUESTION], "completion": [ANSWER]}, RowForm.PROMPT, [SYSTEM, QUESTION, ANSWER]),
]
OTHERS: list[tuple[dict[str, object], RowForm]] = [
    ({"prompt": "Q", "chosen": "A", "rejected": "B"}, RowForm.PREFERENCE),
    (
        {"chosen": [QUESTION, ANSWER], "rejected": [QUESTION, {"role": "assistant", "content": "B"}]},
        RowForm.PREFERENCE,
    ),
    (
        {
            "prompt": "Q",
            "chosen": [QUESTION, ANSWER],
            "rejected": [QUESTION, {"role": "assistant", "content": "B"}],
            "score_chosen": 8.5,
        },
        RowForm.PREFERENCE,
    ),
    (
        {
            "input": {"messages": [QUESTION], "tools": []},
            "preferred_output": [ANSWER],
            "non_preferred_output": [{"role": "assistant", "content": "B"}],
        },
        RowForm.OPENAI_PREFERENCE,
    ),
]


@pytest.mark.parametrize(("row", "form", "messages"), SUPERVISED)
def test_every_supervised_form_is_the_same_conversation_and_can_be_trained_on(
    row: dict[str, object], form: RowForm, messages: list[dict[str, str]], tmp_path: Path
) -> None:
    sample = read_sample(row)
    assert sample.form is form
    assert canonical(sample) == {"messages": messages}
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row))
    (read,) = read_rows(path)
    assert read.messages == sample.messages


@pytest.mark.parametrize(("row", "form"), OTHERS)
def test_every_form_of_a_preference_is_the_same_pair(row: dict[str, object], form: RowForm) -> None:
    sample = read_sample(row)
    assert sample.form is form
    pair = {"prompt": [QUESTION], "chosen": [ANSWER], "rejected": [{"role": "assistant", "content": "B"}]}
    assert canonical(sample) == pair
    assert canonical(read_sample(pair)) == pair


def test_ratings_and_texts_have_a_canonical_form() -> None:
    rated = read_sample({"prompt": "Q", "completion": "A", "label": False})
    assert canonical(rated) == {"prompt": [QUESTION], "completion": [ANSWER], "label": False}
    assert canonical(read_sample({"text": "T"})) == {"text": "T"}


def test_a_weight_of_zero_survives_the_canonical_form() -> None:
    row = {"messages": [QUESTION, {**ANSWER, "weight": 0}, QUESTION, ANSWER]}
    assert canonical(read_sample(row)) == row


def test_tools_and_other_keys_are_named_not_lost() -> None:
    sample = read_sample({"messages": [QUESTION, ANSWER], "tool_choice": "auto", "source": "x"})
    assert (sample.tools, sample.extra) == ((), ("source", "tool_choice"))


@pytest.mark.parametrize(
    ("row", "fact", "rule"),
    [
        ({"instruction": "Q", "inptu": "I", "output": "A"}, "'inptu', which looks like 'input'", "D-FORM"),
        ({"question": "Q"}, "has the keys ['question']", "D-FORM"),
        (
            {"prompt": "Q", "completion": "A", "kto_tag": None, "system": 1},
            "system is 1, not a text",
            "D-SCHEMA",
        ),
        ({"prompt": "Q", "completion": None}, "completion is null, not a text", "D-SCHEMA"),
        ({"prompt": "Q", "completion": " "}, 'completion is " "', "D-EMPTY"),
        ({"prompt": "", "completion": "A"}, 'prompt is ""', "D-EMPTY-INPUT"),
        ({"instruction": "Q", "input": ["I"], "output": "A"}, 'input is ["I"], not a text', "D-SCHEMA"),
        ({"conversations": [{"from": "robot", "value": "x"}]}, 'from is "robot"', "D-ROLE"),
        ({"messages": [QUESTION]}, "no assistant message to learn from", "D-UNTRAINED"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "holds image_url", "D-MEDIA"),
        ({"chosen": "A", "rejected": "B"}, "has no prompt", "D-SCHEMA"),
    ],
)
def test_a_row_that_cannot_be_read_is_a_finding_in_words(
    row: dict[str, object], fact: str, rule: str
) -> None:
    with pytest.raises(Malformed) as caught:
        read_sample(row)
    assert fact in str(caught.value)
    assert caught.value.rule == rule


def test_training_refuses_rows_of_another_kind_by_name(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "x"}\n')
    with pytest.raises(UsageError, match=r"row 1: has the keys \['text'\]: text, not supervised training"):
        read_rows(path)


@pytest.mark.parametrize("chunk", [1, 7, 1 << 20])
def test_an_array_is_read_item_by_item_whatever_the_chunks(
    chunk: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("train.dataset.containers.values._CHUNK_BYTES", chunk)
    path = tmp_path / "rows.json"
    items = [{"prompt": f"é {number}", "completion": "[x], ]"} for number in range(5)]
    path.write_text(json.dumps(items, ensure_ascii=False, indent=1))
    lines = list(read_lines(path))
    assert [line.number for line in lines] == [1, 2, 3, 4, 5]
    assert [line.parse() for line in lines] == items
    path.write_text(json.dumps(items)[:-10])
    torn = list(read_lines(path))[-1]
    with pytest.raises(Malformed) as caught:
        torn.parse()
    assert (torn.number, caught.value.rule) == (5, "D-TORN")


def test_paragraphs_of_a_text_file_are_documents(tmp_path: Path) -> None:
    path = tmp_path / "book.txt"
    path.write_text("one\ntwo\n\n\nthree\n")
    assert [(line.number, line.parse()) for line in read_lines(path)] == [
        (1, {"text": "one\ntwo"}),
        (5, {"text": "three"}),
    ]


def test_a_line_separator_inside_a_text_does_not_split_the_row(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "a\u2028b", "completion": "c"}\n')
    assert read_rows(path)[0].messages[0].content == "a\u2028b"


KEYS = (
    "messages", "conversations", "instruction", "input", "output", "prompt", "completion", "context", "label",
    "chosen", "rejected", "text", "system", "history", "role", "content", "from", "value", "weight", "tools",
    "preferred_output", "non_preferred_output", "type", "question", "answer", "conversation", "kto_tag",
    "images", "rejected_response", "rating", "is_correct", "response",
)  # fmt: skip
TEXTS = st.sampled_from(["", " ", "user", "assistant", "human", "gpt", "x", "\ud83d", "text"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(0, 2) | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5),
    max_leaves=12,
)


def outcome(read: Callable[[], CanonicalRow]) -> CanonicalRow | str:
    """Return what was read, or the id of the finding."""
    try:
        return read()
    except Malformed as error:
        return error.rule


@given(VALUES)
@settings(max_examples=400, deadline=None)
def test_any_json_is_a_row_or_a_finding_of_the_catalogue(value: object) -> None:
    found = outcome(lambda: read_sample(value))
    if isinstance(found, str):
        assert found in CATALOGUE
    else:
        assert read_sample(json.loads(json.dumps(canonical(found)))).texts == found.texts


@given(st.binary(max_size=80))
@settings(max_examples=100, deadline=None)
def test_any_bytes_are_a_row_or_a_finding_of_the_catalogue(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name in ("rows.jsonl", "rows.txt"):
            path = Path(folder) / name
            path.write_bytes(data)
            found = [outcome(lambda line=line: read_sample(line.parse())) for line in read_lines(path)]  # type: ignore[misc]
            assert all(isinstance(one, CanonicalRow) or one in CATALOGUE for one in found)
