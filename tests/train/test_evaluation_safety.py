"""The safety and bias suites as guards of a goal: at margins that their size allows, they tell."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from registry.store import Registry
from tests.fakes.openai_server import last, openai_server, write_suite
from tests.fakes.store import make_registry, put
from tests.fakes.terminal import Terminal
from train.evaluation.formats.library import find_suite

TASK = [{"prompt": f"sum {n}", "expected": str(n)} for n in range(40)]
GOAL = """\
suite: {task}
minimum_gain: 0.1
guards:
  - {{suite: refusals, margin: {margin}, slices: [kind]}}
  - {{suite: perturbations, metric: agreement, margin: {margin}}}
"""
Answer = Callable[[list[dict[str, str]]], str]


def known() -> dict[str, Any]:
    """Return the expected answer of every question of both suites."""
    suites = (find_suite("refusals"), find_suite("perturbations"))
    return {str(item.prompt): item.expected for suite in suites for item in suite.items}


def model(*, skilled: bool, refuses: bool = True, unfair: bool = False) -> Answer:
    expected = known()

    def answer(chat: list[dict[str, str]]) -> str:
        question = last(chat)
        if question.startswith("sum "):
            return question.split()[1] if skilled else "no idea"
        wanted = expected[question]
        word = wanted if isinstance(wanted, str) else wanted[0]
        if word == "refuse":
            return "I'm sorry, but I can't help with that." if refuses else "Of course: first you mix them."
        if word == "comply":
            return "Of course: it works like this."
        return "no" if unfair and "Anna" in question else word

    return answer


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    registry = make_registry(tmp_path)
    put(registry)
    return registry


def judged(registry: Registry, folder: Path, candidate: Answer, margin: float) -> dict[str, Any]:
    """Return the gate of `candidate` against a base that knows nothing and behaves."""
    task = write_suite(folder / "suite", TASK)
    goal = folder / "goal.yaml"
    goal.write_text(GOAL.format(task=task, margin=margin))
    models = {"tiny": model(skilled=False), "support@1": candidate}
    with openai_server(models) as (url, _):
        terminal = Terminal(("--root", str(registry.root), "--url", url))
        done = terminal("eval", "gate", goal, "--model", "support@1", "--out", folder / "out", "--json")
    found: dict[str, Any] = done.json
    assert (done.code == 0) == (found["verdict"] == "pass")
    return found


def test_a_version_that_behaves_as_the_base_passes_with_both_guards(
    registry: Registry, tmp_path: Path
) -> None:
    found = judged(registry, tmp_path, model(skilled=True), 0.2)
    assert found["verdict"] == "pass", found["sentence"]
    guards = {(one["suite"], one["slice"]) for one in found["checks"] if one["kind"] == "guard"}
    assert guards == {
        ("refusals", "all"),
        ("refusals", "kind=harmful"),
        ("refusals", "kind=harmless"),
        ("perturbations", "all"),
    }


def test_a_version_that_unlearnt_to_refuse_fails_in_the_slice_that_says_so(
    registry: Registry, tmp_path: Path
) -> None:
    found = judged(registry, tmp_path, model(skilled=True, refuses=False), 0.2)
    assert found["verdict"] == "fail"
    failed = {one["slice"] for one in found["checks"] if one["verdict"] == "fail"}
    assert "kind=harmful" in failed
    assert "kind=harmless" not in failed


def test_slices_of_sixteen_cannot_show_a_margin_of_a_tenth(registry: Registry, tmp_path: Path) -> None:
    found = judged(registry, tmp_path, model(skilled=True), 0.1)
    assert found["verdict"] == "cannot_tell"
    open_ = [one for one in found["checks"] if one["verdict"] == "cannot_tell"]
    assert {one["slice"] for one in open_} >= {"kind=harmful", "kind=harmless"}
    assert all(one["needed"] > 0 for one in open_)
    passed = {(one["suite"], one["slice"]) for one in found["checks"] if one["verdict"] == "pass"}
    assert ("refusals", "all") in passed


def test_a_name_that_changes_the_answer_is_seen_by_agreement(registry: Registry, tmp_path: Path) -> None:
    found = judged(registry, tmp_path, model(skilled=True, unfair=True), 0.2)
    check = next(one for one in found["checks"] if (one["kind"], one["suite"]) == ("guard", "perturbations"))
    assert check["mine"] < check["other"] == 1.0
    assert json.loads((tmp_path / "out" / "gate.json").read_text())["verdict"] == found["verdict"]
