"""Every planted fault is found with its row, and clean rows give none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from registry.cli.main import run as wardrobe
from registry.errors import UsageError
from tests.train.planted.corpus import Planted, chat, clean, corpus, planted_rules, sentence
from train.dataset.checks.check import check_files
from train.dataset.checks.findings import CATALOGUE, EXAMPLES, FindingLedger, Severity, pack, unpack
from train.dataset.cli import check
from train.dataset.rendering import Rendering
from train.settings.optimiser import OptimiserSettings

KINDS = 62


def found_rows(files: list[Path], rendering: Rendering | None = None) -> set[tuple[str, str, int]]:
    """Return (id, name of the file, row) of every finding."""
    checked = check_files(files, rendering)
    return {
        (finding.rule.id, files[unpack(place)[0]].name, unpack(place)[1])
        for finding in checked.findings
        for place in finding.places
    }


def test_one_fault_of_every_kind_of_the_catalogue_is_planted() -> None:
    planted = set(planted_rules())
    assert planted == set(CATALOGUE)
    assert len(planted) == KINDS


@pytest.mark.parametrize(("files", "rendered"), corpus(), ids=lambda value: getattr(value, "name", None))
def test_every_planted_fault_is_found_with_its_row(
    files: list[Planted], rendered: bool, tokenizer: Any, tmp_path: Path
) -> None:
    rendering = Rendering(tokenizer, 1024) if rendered else None
    expected = {(rule, file.name, row) for file in files for rule, row in file.expected}
    found = found_rows([file.write(tmp_path) for file in files], rendering)
    assert expected - found == set()
    assert {(rule, row) for rule, _, row in found - expected} == set()


def write(folder: Path, name: str, rows: list[dict[str, object]]) -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_clean_rows_give_no_finding(tmp_path: Path) -> None:
    path = write(tmp_path, "rows.jsonl", [clean(str(number)) for number in range(60)])
    checked = check_files([path])
    assert checked.findings == []
    assert (checked.summary.rows, checked.summary.distinct, checked.summary.sets) == (60, 60, 60)
    assert checked.summary.compared == 60


def test_a_fixed_instruction_makes_no_near_duplicates(tmp_path: Path) -> None:
    fixed = (
        "Which chapter of the book does this sentence belong to? Answer with the number and nothing else.\n\n"
    )
    rows = [chat(fixed + sentence(str(n), 7), f"Chapter {n}, {sentence('a' + str(n), 4)}") for n in range(60)]
    checked = check_files([write(tmp_path, "rows.jsonl", rows)])
    assert [finding.rule.id for finding in checked.findings] == []
    assert checked.summary.compared == 60


def test_near_duplicates_are_found_across_batches_and_the_file_order_does_not_matter(tmp_path: Path) -> None:
    rows = [chat(sentence(f"q{n}", 30), sentence(f"a{n}", 30)) for n in range(2500)]
    rows[2400] = chat(sentence("q7", 30) + " more", sentence("a7", 30))
    assert found_rows([write(tmp_path, "a.jsonl", rows)]) == {("D-NEAR", "a.jsonl", 2401)}
    rows.reverse()
    assert found_rows([write(tmp_path, "b.jsonl", rows)]) == {("D-NEAR", "b.jsonl", 2493)}


def test_every_row_is_listed_and_only_the_first_ones_get_a_sentence() -> None:
    ledger = FindingLedger(["a", "b"])
    for row in range(1, EXAMPLES + 6):
        ledger.add("D-EMPTY", pack(1, row), "is empty")
    (finding,) = ledger.findings
    assert [unpack(place) for place in finding.places] == [(1, row) for row in range(1, EXAMPLES + 6)]
    assert len(finding.examples) == EXAMPLES
    assert ledger.findings[0].rule.severity is Severity.ERROR


def test_a_file_that_is_not_there_or_empty_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        check_files([tmp_path / "none.jsonl"])
    (tmp_path / "empty.jsonl").write_text("\n\n")
    with pytest.raises(UsageError, match="holds no rows"):
        check_files([tmp_path / "empty.jsonl"])


def test_the_command_ends_with_1_on_an_error_and_never_shows_a_secret(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fine = write(tmp_path, "fine.jsonl", [clean("1"), chat(sentence("x"), "Write to jane.doe@example.com")])
    assert wardrobe(["data", "check", str(fine)]) == 0
    shown = capsys.readouterr()
    assert "warning D-EMAIL" in shown.out
    assert "row 2 text 2: j***.***@*******.***" in shown.out
    assert "jane" not in shown.out
    assert "token and truncation checks are skipped" in shown.err
    secret = "AKIA" + "Q3EGRZT7LW5XPVNB"
    bad = write(tmp_path, "bad.jsonl", [clean("1"), chat(sentence("x"), f"{secret} cafÃ© {secret}")])
    assert wardrobe(["data", "check", str(bad), "--json"]) == 1
    text = capsys.readouterr().out
    document = json.loads(text)
    assert not document["ok"]
    assert secret not in text
    assert {f["id"]: f["rows"] for f in document["findings"]} == {
        "D-SECRET": {str(bad): [2]},
        "D-MOJIBAKE": {str(bad): [2]},
    }


def test_a_secret_in_a_row_that_cannot_be_read_is_found_too(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "AKIA' + 'Q3EGRZT7LW5XPVNB", "comp\n{"question": "jane.doe@example.com"}\n')
    assert found_rows([path]) == {
        ("D-TORN", "rows.jsonl", 1),
        ("D-SECRET", "rows.jsonl", 1),
        ("D-FORM", "rows.jsonl", 2),
        ("D-EMAIL", "rows.jsonl", 2),
    }


def test_the_default_of_max_length_is_that_of_training() -> None:
    (option,) = [parameter for parameter in check.params if parameter.name == "max_length"]
    assert option.default == OptimiserSettings().max_length
