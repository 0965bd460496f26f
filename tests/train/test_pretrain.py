"""Documents are learnt whole, each with the end that the base knows for a text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from registry.errors import UsageError
from registry.store import Registry
from tests.train.tiny import make_tiny_base, tiny_config, train
from train.config import TrainConfig, parse_config
from train.methods.pretrain import PretrainMethod, end_of_text

METHOD = PretrainMethod()


def config(folder: Path, **data: object) -> TrainConfig:
    document = {"name": "a", "method": "pretrain", "data": {"train": "texts.jsonl", **data}}
    return parse_config(document, "config", folder)


def write(folder: Path, *rows: object, name: str = "texts.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_document_ends_with_the_end_of_a_text_not_of_a_turn(tokenizer: Any, tmp_path: Path) -> None:
    path = write(tmp_path, {"text": "One plain sentence."}, {"text": "Two."})
    first, second = METHOD.read(path, tokenizer, config(tmp_path)).items
    found: Any = first
    assert tokenizer.decode(found.input_ids) == "One plain sentence.<|endoftext|>"
    assert found.input_ids[-1] == end_of_text(tokenizer) != tokenizer.eos_token_id
    assert found.labels == found.input_ids
    assert (second.row, second.truncated) == (2, False)


def test_a_document_may_be_longer_than_a_row(tokenizer: Any, tmp_path: Path) -> None:
    path = write(tmp_path, {"text": "many words " * 2000})
    (found,) = METHOD.read(path, tokenizer, config(tmp_path)).items
    assert found.length > 4000
    assert not found.truncated


def test_a_text_file_is_a_document_per_paragraph(tokenizer: Any, tmp_path: Path) -> None:
    path = tmp_path / "book.txt"
    path.write_text("First paragraph\nof two lines.\n\nSecond.\n")
    found = METHOD.read(path, tokenizer, config(tmp_path)).items
    assert [item.row for item in found] == [1, 4]


@pytest.mark.parametrize(
    ("row", "fact"),
    [
        ({"prompt": "a", "completion": "b"}, "row 1: is supervised"),
        ({"text": "before <|im_end|> after"}, "row 1: text holds the special token <|im_end|>"),
        ({"text": ""}, "row 1: text"),
        ([1], "row 1"),
    ],
)
def test_a_row_that_is_no_plain_text_is_named(tokenizer: Any, tmp_path: Path, row: object, fact: str) -> None:
    with pytest.raises(UsageError, match=fact.replace("|", r"\|")):
        METHOD.read(write(tmp_path, row), tokenizer, config(tmp_path))


def test_what_happens_to_long_rows_cannot_be_chosen() -> None:
    with pytest.raises(UsageError, match="a long document goes on in the next row"):
        METHOD.check(config(Path(), overflow="drop"))


@pytest.mark.training
def test_documents_end_to_end_are_trained_and_become_a_version(tokenizer: Any, tmp_path: Path) -> None:
    write(tmp_path, *({"text": f"The colour of number {n} is emerald green."} for n in range(41)))
    write(tmp_path, {"text": "The colour of number 7 is emerald green."}, name="held-out.jsonl")
    registry = Registry.init(
        tmp_path / "root", make_tiny_base(tmp_path / "base", tokenizer), name="tiny-base"
    )
    settings = tiny_config(
        tmp_path,
        method="pretrain",
        data={"train": "texts.jsonl"},
        training={"steps": 6},
        checkpoints={"every": None},
    )
    found = train(registry, settings)
    assert found.published is not None
    assert found.result.losses[-1] < found.result.losses[0] - 0.05
    # Every row is full (48 tokens), so 6 steps of 4 rows have seen this many, or one short last row less.
    assert 6 * 4 * 48 - 6 * 48 < found.result.tokens <= 6 * 4 * 48
