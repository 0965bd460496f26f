"""A recipe's files are what training and evaluation read, and its report shows every figure."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.examples.scores import AccuracyScore
from deploy.examples.tasks import medical_task
from deploy.recipes.materials import Materials, write_lines
from deploy.recipes.report import AccuracyRow, guard_table, table
from train.config import load_config
from train.evaluation.formats.library import find_suite


@pytest.fixture
def recipe(tmp_path: Path) -> Materials:
    task = medical_task(per_label=20, held_out_per_label=2)
    return Materials.of(tmp_path, task, medical_task(per_label=25))


def test_no_row_is_learnt_and_asked(recipe: Materials) -> None:
    learnt, asked = {row.text for row in recipe.train}, {row.text for row in recipe.task.held_out}
    assert not learnt & asked
    assert not learnt & {row.text for row in (*recipe.validation, *recipe.spare)}
    assert not {row.group for row in recipe.validation} & {row.group for row in recipe.train}


def test_the_configurations_are_what_training_reads(recipe: Materials) -> None:
    replay = {"path": "replay.jsonl", "share": 0.1}
    write_lines(recipe.folder / "pairs.jsonl", [{"prompt": "a", "chosen": "b", "rejected": "c"}])
    made = (
        recipe.supervised("sft-25", 0.25),
        recipe.supervised("sft-replay", 1.0, replay=replay, overflow="drop"),
        recipe.preferences("medical@1"),
    )
    assert [load_config(path).note for path, _ in made] == [note for _, note in made]
    assert len({note for _, note in made}) == 3
    assert recipe.supervised("sft-25", 0.25) == made[0]


def test_the_suites_are_what_evaluation_reads(recipe: Materials) -> None:
    plain, helped = (find_suite(str(path)) for path in recipe.suites())
    assert [item.expected for item in plain.items] == [row.label for row in recipe.task.held_out]
    first, listed = (suite.questions[0][0].content for suite in (plain, helped))
    assert first == recipe.task.instruction
    assert str(listed).startswith(first)
    assert "respiratory" in str(listed)
    assert len(plain.shots) == recipe.shots >= len(recipe.task.labels)


def test_the_tables_show_every_figure() -> None:
    figures = {
        name: {"all": {"value": 0.5, "low": 0.4, "high": 0.6, "items": 9}}
        for name in ("accuracy", "macro_f1")
    }
    rows = [
        AccuracyRow.of_arm("adapter", 1241, {"figures": figures}),
        AccuracyRow.of_score("cheap", 310, AccuracyScore(8, 10)),
    ]
    assert table(rows).splitlines()[2:] == [
        "| adapter | 1,241 rows | 0.500 | 0.400 – 0.600 | 0.500 |",
        "| cheap | 310 rows | 0.800 | 0.490 – 0.943 | – |",
    ]
    shown = guard_table({"bbh": {"base": {"figures": figures}}})
    assert shown.splitlines()[-1] == "| bbh | 9 | 0.500 (0.400 – 0.600) |"
