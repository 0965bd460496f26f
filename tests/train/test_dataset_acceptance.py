"""What a person has looked at is accepted by its id or row, and recorded; what training refuses is not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from registry.cli.main import run as wardrobe
from registry.errors import UsageError
from tests.train.planted.corpus import chat
from train.dataset.checks.acceptance import parse_acceptance
from train.dataset.checks.check import check_files
from train.dataset.documents import DataReport
from train.dataset.forms import RowMapping
from train.dataset.split import SplitSettings, split_file
from train.epoch.rows import read_rows
from train.settings.data import DataSettings

SECRET = "password: Tr0ub4dor93xyzK"


def write(path: Path, *rows: object) -> Path:
    """Write rows as JSON Lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def ok(paths: list[Path], *accept: str) -> bool:
    """Tell whether a check of `paths` ends well."""
    return check_files(paths, acceptance=parse_acceptance(accept)).ok


def test_a_finding_is_accepted_as_a_whole_or_row_by_row(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", chat("one?", SECRET), chat("two?", "fine"), chat("three?", SECRET))
    assert not ok([path])
    assert ok([path], "D-SECRET")
    assert not ok([path], "D-SECRET:1")
    assert ok([path], "D-SECRET:1,D-SECRET:3")
    other = write(tmp_path / "b.jsonl", chat("four?", SECRET))
    assert not ok([path, other], "D-SECRET:a.jsonl:1,D-SECRET:3")
    assert ok([path, other], "D-SECRET:b.jsonl:1", "D-SECRET:1", "D-SECRET:3")


def test_the_report_says_what_was_accepted_and_the_exit_code_is_0(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "a.jsonl", chat("one?", SECRET))
    assert wardrobe(["data", "check", str(path), "--json"]) == 1
    capsys.readouterr()
    assert wardrobe(["data", "check", str(path), "--accept", "D-SECRET:1,D-EMAIL", "--json"]) == 0
    told = DataReport.model_validate_json(capsys.readouterr().out)
    assert (told.ok, told.accepted) == (True, ["D-SECRET:1", "D-EMAIL"])
    assert [(one.id, one.accepted) for one in told.findings] == [("D-SECRET", 1)]
    assert wardrobe(["data", "check", str(path), "--accept", "D-SECRET"]) == 0
    assert "1 × (all accepted)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("written", "fact"),
    [
        ("D-FORM", "cannot be accepted, for training would refuse it"),
        ("D-SECERT", "did you mean 'D-SECRET'"),
        ("D-SECRET:x", "names no row"),
        ("D-MEDIA:3", "is accepted as a whole"),
    ],
)
def test_what_cannot_be_accepted_is_refused(written: str, fact: str) -> None:
    with pytest.raises(UsageError, match=fact):
        parse_acceptance([written])
    with pytest.raises(ValidationError, match=fact):
        DataSettings.model_validate({"train": "a.jsonl", "accept": [written]})


def test_a_config_and_a_split_accept_and_record_it(tmp_path: Path) -> None:
    settings = DataSettings.model_validate({"train": "a.jsonl", "accept": ["D-MEDIA", "D-SECRET:66"]})
    assert settings.accept == ("D-MEDIA", "D-SECRET:66")
    assert settings.readings["train"].accept == {"D-MEDIA"}
    row = {**chat("<image>What?", "A cat."), "images": ["a.jpg"]}
    path = write(tmp_path / "a.jsonl", row)
    with pytest.raises(UsageError, match=r"row 1: holds images.*--accept D-MEDIA"):
        read_rows(path)
    assert read_rows(path, settings.readings["train"])[0].messages[-1].content == "A cat."
    reading = RowMapping(accept=frozenset({"D-MEDIA"}))
    found = split_file(path, SplitSettings({"train": 1.0}, reading=reading, accepted=("D-MEDIA",)), tmp_path)
    split = found.facts["split"]
    assert isinstance(split, dict)
    assert split["accepted"] == ["D-MEDIA"]


def test_the_first_row_is_shown_as_it_was_understood(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {"id": 7, "frage": "Wie? a.b@example.com", "antwort": "So. " * 40}
    path = write(tmp_path / "a.jsonl", {"broken": 1}, row)
    assert wardrobe(["data", "check", str(path), "--columns", "prompt=frage,completion=antwort"]) == 1
    told = capsys.readouterr().out
    assert "row 2 is prompt/completion (question: frage, answer: antwort)\n" in told
    assert "    user: Wie? a.*@*******.***\n" in told
    assert "…  (learnt)\n    not read: id\n" in told
