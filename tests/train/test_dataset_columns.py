"""Columns with other names than ours are mapped, in commands and in configs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from registry.errors import UsageError
from train.dataset import canonical, read_sample
from train.dataset.checks.check import check_files
from train.dataset.forms.mapping import RowMapping, parse_columns
from train.dataset.records import Malformed
from train.dataset.split import SplitSettings, split_file
from train.epoch.rows import read_rows
from train.settings.data import DataSettings

GERMAN = RowMapping({"prompt": "frage", "completion": "antwort"})


def write(folder: Path, *rows: object) -> Path:
    """Write `rows` as JSON Lines."""
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def turns(row: object, **columns: str) -> list[tuple[str, str]]:
    """Return roles and texts of what `row` says with `columns` mapped."""
    return [(turn.role, turn.content) for turn in read_sample(row, RowMapping(columns)).messages]


def test_a_mapped_column_is_our_key_and_the_others_are_named_as_not_read() -> None:
    sample = read_sample({"frage": "Q", "antwort": "A", "nummer": 7}, GERMAN)
    assert canonical(sample) == canonical(read_sample({"prompt": "Q", "completion": "A"}))
    assert sample.extra == ("nummer",)


def test_a_column_may_lie_inside_another_and_a_text_may_be_fixed() -> None:
    row = {"id": "x", "q": {"de": "Q"}, "answers": {"text": ["A", "B"]}}
    columns = {"prompt": "q.de", "completion": "answers.text.1", "system": "=Be brief, please."}
    assert turns(row, **columns) == [("system", "Be brief, please."), ("user", "Q"), ("assistant", "B")]
    assert turns({"q.de": "dotted", "a": "A"}, prompt="q.de", completion="a")[0] == ("user", "dotted")


def test_a_mapping_may_swap_two_of_our_own_keys() -> None:
    row = {"prompt": "guten Tag", "completion": "good day"}
    swapped = turns(row, prompt="completion", completion="prompt")
    assert swapped == [("user", "good day"), ("assistant", "guten Tag")]


def test_classes_and_numbers_become_texts_where_a_column_is_mapped() -> None:
    assert turns({"text": "lovely", "label": 1}, prompt="text", completion="label")[-1] == ("assistant", "1")


def test_a_row_without_a_value_in_a_mapped_column_is_a_finding() -> None:
    with pytest.raises(Malformed) as caught:
        read_sample({"frage": "Q", "antwort": None}, GERMAN)
    assert caught.value.rule == "D-FORM"
    assert "no value in the column 'antwort', which stands for completion" in str(caught.value)


def test_a_column_that_no_row_has_names_those_that_are_there(tmp_path: Path) -> None:
    path = write(tmp_path, {"frage": "Q", "antwort": "A"})
    reading = RowMapping({"prompt": "frage", "completion": "antwrot"})
    for read in (lambda: check_files([path], reading=reading), lambda: read_rows(path, reading)):
        with pytest.raises(UsageError) as caught:
            read()
        assert "no row has the column 'antwrot', which stands for completion" in str(caught.value)
        assert "did you mean 'antwort'? there are frage, antwort" in str(caught.value)


def test_columns_are_written_as_pairs_parted_by_commas() -> None:
    assert parse_columns(["prompt=frage, completion=antwort"]) == dict(GERMAN.columns)
    assert parse_columns(["prompt=q", "system==Be brief, please.,completion=a"]) == {
        "prompt": "q",
        "system": "=Be brief, please.",
        "completion": "a",
    }
    for written, fact in (("frage", "maps nothing"), ("promt=frage", "'prompt'"), ("prompt=", "no column")):
        with pytest.raises(UsageError, match=fact):
            parse_columns([written])


def test_a_source_and_the_replay_have_columns_of_their_own() -> None:
    given = {
        "train": [{"path": "a.jsonl", "columns": dict(GERMAN.columns)}, "b.jsonl"],
        "replay": {"path": "c.jsonl", "columns": {"text": "body"}},
    }
    readings = DataSettings.model_validate(given).readings
    assert (readings["a"], readings["b"]) == (GERMAN, RowMapping())
    assert readings["replay"].columns == {"text": "body"}
    with pytest.raises(ValidationError, match="did you mean 'prompt'"):
        DataSettings.model_validate({"train": [{"path": "a.jsonl", "columns": {"promt": "frage"}}]})


def test_a_split_reads_the_columns_and_names_them_in_its_manifest(tmp_path: Path) -> None:
    path = write(tmp_path, {"frage": "Q", "antwort": "A"}, {"frage": "R", "antwort": "B"})
    found = split_file(path, SplitSettings({"train": 1.0}, canonical=True, reading=GERMAN), tmp_path)
    first = json.loads((tmp_path / "train.jsonl").read_text().splitlines()[0])
    assert [turn["content"] for turn in first["messages"]] == ["Q", "A"]
    split = found.facts["split"]
    assert isinstance(split, dict)
    assert split["columns"] == dict(GERMAN.columns)
