"""What a person sees: the mask per token, the page, the progress bar, the catalogue in the README."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from registry.cli.main import run as wardrobe
from registry.errors import UsageError
from tests.outline import assert_harmless
from tests.train.planted.corpus import chat, clean, corpus, sentence
from train.dataset.checks.check import check_files
from train.dataset.checks.findings import CATALOGUE
from train.dataset.documents import DataReport
from train.dataset.mask import Why, mask_file
from train.dataset.page import page
from train.dataset.progress import LateProgress
from train.epoch.encoding import IGNORED, render
from train.epoch.rows import read_rows


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_the_mask_says_why_of_every_token_and_agrees_with_training(tokenizer: Any, tmp_path: Path) -> None:
    turns = [
        {"role": "user", "content": "one?"},
        {"role": "assistant", "content": "first", "weight": 0},
        {"role": "user", "content": "two?"},
        {"role": "assistant", "content": "second"},
    ]
    path = write(tmp_path / "rows.jsonl", {"messages": turns})
    (masked,) = mask_file(path, frozenset(), tokenizer, 1024)
    (example,) = render(read_rows(path)[0], tokenizer)
    assert [token.why.learnt for token in masked.tokens] == [label != IGNORED for label in example.labels]
    texts = {why: "".join(t.text for t in masked.tokens if t.why is why) for why in Why}
    assert texts[Why.ANSWER] == "second"
    assert texts[Why.END] == "<|im_end|>"
    assert texts[Why.HEADER] == "<|im_start|>assistant\n"
    assert texts[Why.UNUSED] == "<|im_start|>assistant\nfirst<|im_end|>\n"
    assert texts[Why.AFTER] == ""
    assert texts[Why.QUESTION].endswith("<|im_start|>user\ntwo?<|im_end|>\n")


def test_the_mask_shows_both_answers_of_a_pair_and_what_is_cut_off(tokenizer: Any, tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", {"prompt": "Q", "chosen": "good " * 30, "rejected": "bad " * 30})
    chosen, rejected = mask_file(path, frozenset({1}), tokenizer, 50)
    assert (chosen.part, rejected.part) == ("chosen", "rejected")
    assert all((token.why is Why.CUT) == (index >= 50) for index, token in enumerate(chosen.tokens))
    with pytest.raises(UsageError, match="row 1: has no trained token"):
        list(mask_file(path, frozenset({1}), tokenizer, 5))
    with pytest.raises(UsageError, match="row 9: is not in the file"):
        list(mask_file(path, frozenset({9}), tokenizer, 50))


def test_mask_needs_a_tokenizer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "rows.jsonl", clean("1"))
    assert wardrobe(["data", "mask", str(path)]) == 2
    assert "needs a tokenizer; give --base or --root" in capsys.readouterr().err


@pytest.mark.parametrize("group", range(len(corpus())))
def test_the_page_of_every_planted_file_is_well_formed_and_loads_nothing(group: int, tmp_path: Path) -> None:
    files, _ = corpus()[group]
    paths = [file.write(tmp_path) for file in files]
    document = DataReport.of(check_files(paths), None, None)
    assert_harmless(page(document))
    assert ("<svg" in page(document)) is bool(document.lengths)  # none where no row can be read
    assert all(finding.id in page(document) for finding in document.findings)


def test_the_page_shows_markup_of_the_data_as_text(tmp_path: Path) -> None:
    rows = [chat(sentence(str(n)), "<b>yes</b>" if n % 2 else "<script>alert(1)</script>") for n in range(12)]
    text = page(DataReport.of(check_files([write(tmp_path / "rows.jsonl", *rows)]), None, None))
    assert "&lt;script&gt;" in text
    assert "<script" not in text
    assert "<b>yes" not in text


def test_report_writes_a_page_and_its_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "rows.jsonl", *[clean(str(n)) for n in range(5)])
    assert wardrobe(["data", "report", str(path), "--out", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out.split() == [
        str(tmp_path / "out" / f"rows.report.{kind}") for kind in ("html", "json")
    ]
    document = DataReport.model_validate_json((tmp_path / "out/rows.report.json").read_text())
    assert (document.ok, document.rows) == (True, 5)


def test_the_bar_comes_only_after_two_seconds_and_loses_no_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    shown: list[object] = []

    class Bar:
        def __enter__(self) -> Any:
            return shown.append

        def __exit__(self, *_: object) -> None:
            shown.append("end")

    monkeypatch.setattr("train.dataset.progress.time.monotonic", lambda: now[0])
    monkeypatch.setattr("train.dataset.progress.output.progress", lambda *_, **__: Bar())
    with LateProgress() as progress:
        progress.phase("checking", 500_000, in_bytes=True)
        progress.advance(300_000)
        assert shown == []
        now[0] = 2.5
        progress.advance(4)
        progress.advance(5)
        assert shown == [300_004]
        progress.phase("comparing", 2)
        progress.advance(1)
    assert shown == [300_004, "end", 0, 1, "end"]


def test_help_loads_nothing_heavy(tmp_path: Path) -> None:
    heavy = ("torch", "transformers", "rensa", "ftfy", "rich", "scipy")
    code = (
        "import sys\nfrom registry.cli.main import run\nrun(['data', 'check', '--help'])\n"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_readme_lists_every_finding_with_its_severity() -> None:
    text = (Path(__file__).parents[2] / "train/dataset/README.md").read_text()
    listed = dict(re.findall(r"^\| `(D-[A-Z-]+)` \| (error|warning|info) \|", text, re.MULTILINE))
    assert listed == {rule.id: rule.severity.value for rule in CATALOGUE.values()}
