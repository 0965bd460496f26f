"""The demo names the winner by the numbers alone, also when it is the cheap method."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from deploy.demo.baseline import AccuracyScore
from deploy.demo.data import DemoRow, DemoTask
from deploy.demo.report import Result, accuracy_table, conclusions, print_next, swap_table
from deploy.demo.swap import Asked, StableMove, judge

TASK = DemoTask("medical", "diagnosis → chapter", "?", ("a", "b"), (), (DemoRow("x", "a", "g"),))


def results(adapter: int, bayes: int, regression: int) -> list[Result]:
    return [
        Result(TASK, "base", 0, AccuracyScore(20, 200)),
        Result(TASK, "medical@1", 480, AccuracyScore(adapter, 200)),
        Result(TASK, "naive Bayes", 480, AccuracyScore(bayes, 200), cheap=True),
        Result(TASK, "logistic regression", 480, AccuracyScore(regression, 200), cheap=True),
    ]


def text_of(*parts: object) -> str:
    console = Console(file=io.StringIO(), width=150)
    for part in parts:
        console.print(part)
    found = console.file
    assert isinstance(found, io.StringIO)
    return found.getvalue()


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
    (said,) = conclusions(results(*scores))
    assert said.startswith(sentence)


def test_an_adapter_is_compared_on_its_own_training_rows_only() -> None:
    more_rows = Result(TASK, "logistic regression", 1400, AccuracyScore(199, 200), cheap=True)
    (said,) = conclusions([*results(160, 90, 100), more_rows])
    assert "beats the best cheap method" in said


def test_the_table_shows_counts_accuracy_and_interval() -> None:
    shown = text_of(accuracy_table(results(160, 90, 100)))
    assert "160/200" in shown
    assert "0.800" in shown
    assert "0.739 – 0.850" in shown


def test_the_swaps_table_shows_failures_and_wrong_versions() -> None:
    moves = [StableMove(1, 0, 0), StableMove(2, 10, 10.2), StableMove(1, 20, 20.2)]
    verdict = judge(
        [Asked(1, 1, 2, (1,)), Asked(12, 12, 13, (2,)), Asked(30, 30, 31, (2,)), Asked(30, 30, 31, (), "x")],
        moves,
    )
    shown = text_of(swap_table(verdict, "medical"))
    assert "medical@1: 1, medical@2: 2" in shown
    assert [line.split()[-2] for line in shown.splitlines() if "failed" in line or "wrong" in line] == [
        "1",
        "1",
    ]


def test_the_commands_to_try_name_the_root_and_quote_the_question(tmp_path: Path) -> None:
    console = Console(file=io.StringIO(), width=100)
    print_next(console, tmp_path, "Ménière's disease", tmp_path / "config.json")
    found = console.file
    assert isinstance(found, io.StringIO)
    shown = found.getvalue()
    assert f"wardrobe --root {tmp_path} serve" in shown
    assert shown.count("'") % 2 == 0
