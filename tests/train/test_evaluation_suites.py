"""Suites are read strictly: a mistake names its file, line and key."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from registry.errors import UsageError
from tests.fakes.openai_server import write_suite
from train.evaluation.formats.library import find_suite, known_suites
from train.evaluation.formats.suites import load_suite
from train.evaluation.gating.goal import Goal, load_goal
from train.evaluation.runner import with_shots

ITEM = {"prompt": "2+2?", "expected": "4"}


def test_a_suite_gets_ids_messages_and_a_digest_that_follows_its_content(tmp_path: Path) -> None:
    first = load_suite(
        write_suite(tmp_path / "a", [ITEM, {"id": "x", "prompt": "3?", "expected": ["3", "three"]}])
    )
    assert [item.id for item in first.items] == ["1", "x"]
    assert first.items[1].answers == ("3", "three")
    assert first.questions[0][0].content == "2+2?"
    same = load_suite(
        write_suite(tmp_path / "b", [ITEM, {"id": "x", "prompt": "3?", "expected": ["3", "three"]}])
    )
    other = load_suite(
        write_suite(tmp_path / "c", [ITEM, {"id": "x", "prompt": "4?", "expected": ["3", "three"]}])
    )
    assert first.sha256 == same.sha256 != other.sha256
    assert first.limited(1).sha256 != first.sha256
    assert len(first.limited(1).items) == len(first.limited(1).questions) == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"grders": []}, "unknown setting grders; did you mean graders?"),
        ({"graders": [{"type": "exact", "casefol": True}]}, "did you mean graders.0.casefold?"),
        ({"graders": [{"type": "exactly"}]}, "exactly"),
        ({"graders": [{"type": "exact"}, {"type": "exact"}]}, "gives the grader 'exact' twice"),
        ({"graders": [{"type": "regex", "pattern": "("}]}, "is not a regular expression"),
        ({"sampling": {"max_token": 3}}, "did you mean sampling.max_tokens?"),
        (
            {"graders": [{"type": "accuracy", "labels": ["a", "b"]}]},
            "expects '4', which is none of the labels",
        ),
        ({"graders": [{"type": "agreement"}]}, "no pairs"),
        ({"graders": [{"type": "python"}]}, "needs `source` or `file`"),
        ({"template": "{{item.word}}"}, "has no data.word"),
    ],
)
def test_a_mistake_in_a_suite_is_named(tmp_path: Path, change: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError) as error:
        load_suite(write_suite(tmp_path, [ITEM], **change))
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("items", "words"),
    [
        ([ITEM, {"promt": "x"}], ".jsonl:2: unknown setting promt; did you mean prompt?"),
        ([{"prompt": "x"}], "has no `expected`"),
        ([{"expected": "x"}], "asks nothing"),
        ([{**ITEM, "id": "a"}, {**ITEM, "id": "a"}], "gives the id 'a' twice"),
        ([{**ITEM, "graders": ["exct"]}], "names no grader of the suite: exct"),
        ([{**ITEM, "messages": [{"role": "user", "content": "x"}]}], "give one"),
        (
            [{"expected": "x", "messages": [{"role": "assistant", "content": "x"}]}],
            "does not end with a user's",
        ),
    ],
)
def test_a_mistake_in_an_item_is_named(tmp_path: Path, items: list[dict[str, object]], words: str) -> None:
    with pytest.raises(UsageError) as error:
        load_suite(write_suite(tmp_path, items))
    assert words in str(error.value)


def test_a_line_that_is_no_json_is_named(tmp_path: Path) -> None:
    path = write_suite(tmp_path, [ITEM])
    (tmp_path / "items.jsonl").write_text(json.dumps(ITEM) + "\n\n{nope\n")
    with pytest.raises(UsageError, match=r"\.jsonl:3: "):
        load_suite(path)


def test_shots_stand_before_the_question_and_after_the_system_message(tmp_path: Path) -> None:
    shots = [{"prompt": "1+1?", "expected": "2"}]
    suite = load_suite(
        write_suite(tmp_path, [ITEM], shots=shots, system="Be brief.", template="Q {{item.prompt}}")
    )
    (asked,) = with_shots(suite, 1)
    assert [(one.role, one.content) for one in asked] == [
        ("system", "Be brief."),
        ("user", "Q 1+1?"),
        ("assistant", "2"),
        ("user", "Q 2+2?"),
    ]
    with pytest.raises(UsageError, match="has 1 shots, not 2"):
        with_shots(suite, 2)


def test_our_own_suites_are_read() -> None:
    own = [known.name for known in known_suites() if known.source == "wardrobe"]
    assert own == ["perturbations", "refusals"]
    suites = [find_suite(name) for name in own]
    assert [len(suite.items) for suite in suites] == [36, 32]
    kinds = {item.expected for item in suites[1].items}
    assert kinds == {"refuse", "comply"}
    with pytest.raises(UsageError, match="did you mean refusals"):
        find_suite("refusal")


def test_a_goal_is_the_same_by_hash_however_it_is_written(tmp_path: Path) -> None:
    alone, inside = tmp_path / "goal.yaml", tmp_path / "config.yaml"
    alone.write_text("suite: task.yaml\nminimum_gain: 0.02\nguards: [{suite: refusals}]\n")
    inside.write_text(
        "name: support\ngoal:\n  guards: [{suite: refusals, margin: 0.05}]\n"
        "  minimum_gain: 2.0e-2\n  suite: task.yaml\n"
    )
    assert load_goal(alone).sha256 == load_goal(inside).sha256
    assert load_goal(alone).sha256 != Goal(suite="task.yaml").sha256
    alone.write_text("suite: a\nmininum_gain: 1\n")
    with pytest.raises(UsageError, match="did you mean minimum_gain"):
        load_goal(alone)
    alone.write_text("suite: a\nguards: [{suite: b, margn: 1}]\n")
    with pytest.raises(UsageError, match=r"did you mean guards\.0\.margin"):
        load_goal(alone)
