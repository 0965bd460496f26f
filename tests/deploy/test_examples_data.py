"""The examples' rows are real, distinct, balanced, the same every time, and nothing held out was seen."""

from __future__ import annotations

import json
import re
from collections import Counter
from importlib import import_module
from pathlib import Path

import pytest

from deploy.examples.rows import DemoRow, balance, split, unlike
from deploy.examples.scores import (
    AccuracyScore,
    score_logistic_regression,
    score_majority,
    score_naive_bayes,
)
from deploy.examples.tasks import DemoTask, family, legal_task, medical_task, write_rows
from serve.rollout.presets import load_policy
from train.config import load_config
from train.epoch.rows import read_rows


@pytest.fixture(scope="module", params=["medical", "legal"])
def task(request: pytest.FixtureRequest) -> DemoTask:
    return medical_task() if request.param == "medical" else legal_task()


def test_the_tasks_have_the_rows_that_the_demo_speaks_of() -> None:
    medical, legal = medical_task(), legal_task()
    assert (len(medical.labels), len(medical.train), len(medical.held_out)) == (14, 1400, 280)
    assert (len(legal.labels), len(legal.train)) == (3, 600)
    assert len(legal.held_out) >= 200


def test_no_group_and_no_text_is_on_both_sides(task: DemoTask) -> None:
    assert not {row.group for row in task.train} & {row.group for row in task.held_out}
    assert not {row.text.lower() for row in task.train} & {row.text.lower() for row in task.held_out}
    assert len({row.text.lower() for row in task.train}) == len(task.train)


def test_no_licence_of_the_training_side_is_nearly_one_that_is_held_out() -> None:
    text = "Redistribution and use in source and binary forms are permitted provided that notices stay"
    near = [
        DemoRow(f"{text} here.", "a", "1"),
        DemoRow("Another text that shares no words with it.", "a", "2"),
    ]
    assert unlike(near, [DemoRow(f"{text} there.", "a", "3")]) == near[1:]
    legal = legal_task()
    assert unlike(legal.train, legal.held_out) == list(legal.train)


def test_every_beginning_of_the_training_rows_is_balanced(task: DemoTask) -> None:
    for size in (len(task.labels) * 10, len(task.train)):
        counts = Counter(row.label for row in task.train[:size])
        assert set(counts) == set(task.labels)
        assert max(counts.values()) - min(counts.values()) <= 1


def test_the_same_packages_give_the_same_rows(task: DemoTask) -> None:
    again = medical_task() if task.name == "medical" else legal_task()
    assert again == task


def test_no_label_is_the_beginning_of_another(task: DemoTask) -> None:
    for label in task.labels:
        assert not [other for other in task.labels if other != label and other.startswith(label)]


def test_the_written_rows_and_config_are_what_training_reads(task: DemoTask, tmp_path: Path) -> None:
    path, note = import_module("deploy.examples.01_train").write_training(task, 40, tmp_path)
    config = load_config(path)
    rows = read_rows(config.data.train[0].path)
    assert len(rows) == 40
    for row, source in zip(rows, task.train, strict=False):
        assert [message.content for message in row.messages] == [task.instruction, source.text, source.label]
        assert [message.learn for message in row.messages] == [False, False, True]
    assert config.note == note
    assert config.name == task.name


def test_a_versions_note_changes_with_its_rows_and_not_with_the_folder(
    task: DemoTask, tmp_path: Path
) -> None:
    write_training = import_module("deploy.examples.01_train").write_training
    notes = [
        write_training(task, rows, tmp_path / place)[1] for rows, place in ((40, "a"), (40, "b"), (41, "a"))
    ]
    assert notes[0] == notes[1]
    assert notes[0] != notes[2]


def test_every_label_has_the_form_that_the_rollout_wants() -> None:
    policy = load_policy(import_module("deploy.examples.04_canary").POLICY)
    assert policy.metrics.format is not None
    form = re.compile(policy.metrics.format.pattern)
    assert all(form.search(label) for label in medical_task().labels)
    assert not any(form.search(label) for label in legal_task().labels)


def test_the_rollouts_policy_is_the_preset_fast_with_a_form_and_a_shorter_cooldown() -> None:
    policy, fast = load_policy(import_module("deploy.examples.04_canary").POLICY), load_policy("fast")
    changed = {"name": "demo", "cooldown_seconds": 5.0, "metrics": policy.metrics}
    assert policy == fast.model_copy(update=changed)


def test_help_for_the_base_lists_every_label(task: DemoTask) -> None:
    (system, _) = task.helped_messages(task.held_out[0])
    assert all(label in str(system["content"]) for label in task.labels)


def test_siblings_of_one_group_stay_together() -> None:
    rows = [DemoRow(f"text {n}", "a", f"group {n % 50}") for n in range(500)]
    train, held_out = split(rows, share=0.3)
    assert len(train) + len(held_out) == 500
    assert 50 < len(held_out) < 250
    assert not {row.group for row in train} & {row.group for row in held_out}


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("gpl-2.0-plus", "gpl"),
        ("gpl-3.0", "gpl"),
        ("mit", "mit"),
        ("bsd-new", "bsd-new"),
        ("apache-2.0", "apache"),
    ],
)
def test_versions_of_a_licence_are_one_family(key: str, name: str) -> None:
    assert family(key) == name


def test_balance_takes_what_there_is() -> None:
    rows = [
        DemoRow(f"{label}{n}", label, str(n)) for label, count in (("a", 9), ("b", 2)) for n in range(count)
    ]
    assert Counter(row.label for row in balance(rows, 5)) == {"a": 5, "b": 2}


def test_the_interval_is_wilsons() -> None:
    # Example of Agresti and Coull 1998: 0 of 10 and 8 of 10.
    low, high = AccuracyScore(0, 10).interval
    assert low == pytest.approx(0, abs=1e-9)
    assert high == pytest.approx(0.2775, abs=1e-4)
    low, high = AccuracyScore(8, 10).interval
    assert low == pytest.approx(0.4902, abs=1e-4)
    assert high == pytest.approx(0.9433, abs=1e-4)


def test_the_cheap_methods_beat_the_most_frequent_label(task: DemoTask) -> None:
    majority = score_majority(task.train, task.held_out)
    for method in (score_naive_bayes, score_logistic_regression):
        assert method(task.train, task.held_out).interval[0] > majority.accuracy


def test_text_is_written_as_json_lines_in_utf8(tmp_path: Path) -> None:
    task = DemoTask("t", "t", "i", ("ä",), (DemoRow("Ménière", "ä", "g"),), ())
    write_rows(task, task.train, tmp_path / "x" / "rows.jsonl")
    (line,) = (tmp_path / "x" / "rows.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(line)["messages"][1]["content"] == "Ménière"
