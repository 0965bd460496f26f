"""The examples name the winner by the numbers alone, also when it is the cheap method, in plain lines."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from deploy.examples.__main__ import SCRIPTS, main, next_commands, play
from deploy.examples.clients import Asked
from deploy.examples.rows import DemoRow
from deploy.examples.scores import AccuracyScore, compare, conclusion
from deploy.examples.verdict import StableMove, judge
from registry.errors import WardrobeError


def cheap(bayes: int, regression: int) -> dict[str, AccuracyScore]:
    return {
        "naive Bayes": AccuracyScore(bayes, 200),
        "logistic regression": AccuracyScore(regression, 200),
    }


@pytest.mark.parametrize(
    ("scores", "sentence"),
    [
        ((160, 90, 100), "medical@1 beats the best cheap method (logistic regression) by 30 points."),
        ((100, 160, 90), "naive Bayes beats medical@1 by 30 points"),
        ((104, 90, 100), "medical@1 is 2 points above logistic regression; the intervals overlap"),
        ((98, 100, 90), "medical@1 is 1 point below naive Bayes; the intervals overlap"),
    ],
)
def test_the_sentence_follows_from_the_numbers(scores: tuple[int, int, int], sentence: str) -> None:
    adapter, *others = scores
    assert conclusion("medical@1", AccuracyScore(adapter, 200), cheap(*others)).startswith(sentence)


def test_an_adapter_is_compared_on_its_own_training_rows_only() -> None:
    train = [DemoRow(f"{word} {n}", word, "") for n in range(20) for word in ("left", "right")]
    lines = compare("medical@1", AccuracyScore(1, 2), train, [DemoRow("left", "left", "")])
    assert [line.split()[-7:-5] for line in lines[:3]] == [["40", "rows"]] * 3
    assert "medical@1" in lines[3]


def test_the_line_shows_counts_accuracy_and_interval() -> None:
    shown = AccuracyScore(160, 200).line("medical@1", 480)
    assert shown.split() == ["medical@1", "480", "rows", "160/200", "0.800", "(0.739", "–", "0.850)"]


def test_the_swaps_lines_show_failures_and_wrong_versions() -> None:
    moves = [StableMove(1, 0, 0), StableMove(2, 10, 10.2), StableMove(1, 20, 20.2)]
    verdict = judge(
        [Asked(1, 1, 2, (1,)), Asked(12, 12, 13, (2,)), Asked(30, 30, 31, (2,)), Asked(30, 30, 31, (), "x")],
        moves,
    )
    shown = verdict.lines("medical")
    assert "  answered by                  medical@1: 1, medical@2: 2" in shown
    assert [line.split()[-1] for line in shown if "failed" in line or "wrong" in line] == ["1", "1"]
    assert shown[-1] == "  first failure: x"


def test_the_commands_to_try_name_the_root_and_quote_the_question(tmp_path: Path) -> None:
    lines = next_commands(tmp_path, "Ménière's disease")
    assert f"wardrobe --root {tmp_path} serve" in lines[0]
    assert "Ménière's disease" in shlex.split(lines[1].replace("\\u00e9", "é").replace("\\u00e8", "è"))[-1]


def test_the_examples_are_short_and_run_in_the_order_of_their_names() -> None:
    assert [path.name for path in SCRIPTS] == ["01_train.py", "02_ask.py", "03_swap.py", "04_canary.py"]
    files = list(SCRIPTS[0].parent.glob("*.py"))
    assert {path.name: n for path in files if (n := len(path.read_text().splitlines())) > 150} == {}


def test_a_promise_that_an_example_does_not_keep_ends_the_demo(tmp_path: Path) -> None:
    script = tmp_path / "03_swap.py"
    script.write_text("import sys; sys.exit(1)")
    with pytest.raises(WardrobeError, match="exit code 1"):
        play(script, "http://127.0.0.1:1")


def test_an_example_on_an_empty_root_says_which_one_comes_first(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(WardrobeError, match="exit code 1"):
        play(SCRIPTS[1], "http://127.0.0.1:1")
    assert "run 01_train.py first" in capfd.readouterr().err


def test_help_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "--root" in capsys.readouterr().out
