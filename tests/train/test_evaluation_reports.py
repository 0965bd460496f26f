"""The pages of an evaluation and a gate: the JSON's figures, the worst items first, nothing twice."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from registry.cli.main import run as wardrobe
from registry.store import Registry
from tests.fakes.adapters import make_adapter
from tests.fakes.base import make_base
from tests.fakes.openai_server import OpenAIServer, last, openai_server, write_suite
from tests.outline import assert_harmless
from train.evaluation.formats.forms import SuiteFile, SuiteItem
from train.evaluation.formats.specs import Exact, Includes, Perplexity, Spec
from train.evaluation.formats.suites import build_suite
from train.evaluation.gating.gate import BASE, CANDIDATE, REPLACED, REPLICATE, hold
from train.evaluation.gating.goal import Goal, GoalGuard
from train.evaluation.gating.trial import GateDocument, GateTrial, describe
from train.evaluation.grading.grades import Grade, ModelAnswer
from train.evaluation.reports.evaluation import MOST_ITEMS as MOST_REPORTED
from train.evaluation.reports.evaluation import page
from train.evaluation.reports.gate import MOST_ITEMS, gate_page, worst
from train.evaluation.results import EvaluationResult
from train.evaluation.runner import ArmResult

INCLUDES = Includes(type="includes")
HOSTILE = "<img src=x onerror=alert(1)>\u202e"


def evaluation(
    arms: dict[str, Sequence[float | None]],
    *,
    spec: Spec = INCLUDES,
    answer: str = "an answer",
    found: str = "",
    failed: Sequence[int] = (),
) -> EvaluationResult:
    """Make an evaluation with these scores; of the candidate, `failed` have no answer."""
    count = len(next(iter(arms.values())))
    items = [SuiteItem(id=f"I{n}", prompt=f"{HOSTILE} {n}", expected=HOSTILE) for n in range(count)]
    suite = build_suite("task", SuiteFile(name="task", items=(), graders=(spec,)), items)

    def sample(label: str, index: int) -> ModelAnswer:
        lost = label == CANDIDATE and index in failed
        return ModelAnswer("", error="status 500") if lost else ModelAnswer(f"{answer} of {label}")

    results = [
        ArmResult(
            label,
            label,
            None,
            0,
            tuple(sample(label, index) for index in range(count)),
            {spec.label: tuple(Grade(score, (), found.format(label)) for score in scores)},
        )
        for label, scores in arms.items()
    ]
    return EvaluationResult(suite, tuple(results), "server", 0.0)


def gate_of(goal: Goal, found: EvaluationResult) -> GateDocument:
    evaluations = {goal.suite: found}
    case = GateTrial(goal, "support@2", "support@1")
    return describe(case, hold(goal, evaluations), {"task": found.document()}, None, "server")


def test_the_report_shows_the_very_differences_of_the_json() -> None:
    found = evaluation({"support@2": [1.0] * 30 + [0.0] * 10, "base": [1.0] * 12 + [0.0] * 28})
    document = found.document()
    (difference,) = document.differences
    assert (difference.gain, difference.changed, difference.items) == (0.45, 18, 40)
    assert 0 < difference.low < 0.45 < difference.high
    assert difference.p_value < 0.001
    text = page(found, document)
    assert_harmless(text)
    assert f"<b>+0.450</b> ({difference.low:+.3f} to {difference.high:+.3f})" in text
    assert "18 of 40 items changed" in text
    # Nothing is computed again: other figures in the document are other figures on the page.
    moved = document.model_copy(
        update={"differences": [difference.model_copy(update={"gain": 0.123, "low": 0.1, "high": 0.2})]}
    )
    assert "<b>+0.123</b> (+0.100 to +0.200)" in page(found, moved)


def test_a_gain_is_positive_where_less_is_better() -> None:
    spec = Perplexity(type="perplexity")
    graded = {
        "better": [Grade(2.0, (-7.0, 10.0))] * 20,
        "worse": [Grade(4.0, (-14.0, 10.0))] * 20,
    }
    blank = evaluation({label: [1.0] * 20 for label in graded}, spec=spec)
    arms = tuple(
        ArmResult(arm.label, arm.model, None, 0, arm.samples, {spec.label: tuple(graded[arm.label])})
        for arm in blank.arms
    )
    (difference,) = EvaluationResult(blank.suite, arms, "server", 0.0).document().differences
    assert difference.gain > 0
    assert difference.mine < difference.other


def test_items_that_one_arm_alone_was_judged_on_are_counted_and_left_out() -> None:
    found = evaluation({"one": [1.0, 1.0, None], "two": [1.0, None, None]})
    (difference,) = found.document().differences
    assert (difference.items, difference.missing) == (1, 1)
    assert "1 in one arm only" in page(found, found.document())
    assert evaluation({"one": [None], "two": [1.0]}).document().differences == []
    assert evaluation({"one": [1.0]}).document().differences == []


@pytest.mark.parametrize("spec", [INCLUDES, Exact(type="exact")])
def test_a_grade_does_not_repeat_the_whole_answer_and_shows_what_was_picked_out(spec: Spec) -> None:
    answer = "The Whole Answer, at length."
    whole = evaluation({"one": [0.0]}, spec=spec, answer=answer, found="the whole answer at length of {}")
    text = page(whole, whole.document())
    assert text.casefold().count("the whole answer") == 1
    assert f"{spec.label} 0</b>" in text
    picked = evaluation({"one": [0.0]}, spec=spec, answer=answer, found="whole")
    assert f"{spec.label} 0</b> whole</span>" in page(picked, picked.document())


def test_a_long_answer_is_not_repeated_by_its_first_500_characters() -> None:
    answer = "word " * 300
    found = evaluation({"one": [0.0]}, answer=answer, found=answer[:500])
    assert page(found, found.document()).count("word word word") == answer.count("word word word")


def test_the_worst_items_come_first_and_the_rest_is_left_out() -> None:
    found = evaluation(
        {
            CANDIDATE: [1.0, 0.0, 0.0, 1.0, None, 0.5],
            BASE: [0.0, 0.0, 1.0, 1.0, 1.0, 0.7],
            REPLACED: [1.0, 0.0, 0.0, 0.0, 1.0, 0.9],
            REPLICATE: [1.0] * 6,
        },
        failed=[4],
    )
    assert worst(found, "includes") == [(4, None), (2, -1.0), (5, pytest.approx(-0.4)), (1, 0.0)]
    many = evaluation({CANDIDATE: [0.0] * 300, BASE: [1.0] * 300, REPLICATE: [0.0] * 300})
    assert len(worst(many, "includes")) == MOST_ITEMS


def test_an_item_where_less_is_better_is_worst_where_it_is_greatest() -> None:
    spec = Perplexity(type="perplexity")
    found = evaluation({CANDIDATE: [3.0, 9.0, 2.0], BASE: [2.0, 2.0, 4.0]}, spec=spec)
    assert worst(found, "perplexity") == [(1, -7.0), (0, -1.0)]


def test_the_gates_page_shows_every_check_with_its_limit_and_interval() -> None:
    found = evaluation(
        {
            CANDIDATE: [1.0] * 80 + [0.0] * 40,
            BASE: [0.0] * 70 + [1.0] * 50,
            REPLACED: [1.0] * 120,
            REPLICATE: [1.0] * 80 + [0.0] * 40,
        }
    )
    goal = Goal(suite="task", minimum_gain=0.05, guards=(GoalGuard(suite="task", margin=0.1),))
    gate = gate_of(goal, found)
    text = gate_page(gate, {"task": found})
    assert_harmless(text)
    assert gate.verdict == "fail"
    assert "support@2: FAIL" in text
    for check in gate.checks:
        assert f"<b>{check.gain:+.3f}</b> ({check.low:+.3f} to {check.high:+.3f})" in text
        if check.kind != "noise":
            assert f"asked for &gt; {check.margin:+.3f}" in text
    assert text.count("-1 against the best of the others") == MOST_ITEMS
    assert "candidate again</b>" not in text
    assert len(text) < 200_000


def test_a_gate_without_an_answer_says_so_in_place_of_a_figure() -> None:
    scores: list[float | None] = [None, None]
    found = evaluation({CANDIDATE: scores, BASE: [1.0, 1.0], REPLICATE: [1.0, 1.0]}, failed=[0, 1])
    text = gate_page(gate_of(Goal(suite="task"), found), {"task": found})
    assert_harmless(text)
    assert "questions without an answer: candidate 2" in text
    assert "no answer: status 500" in text


def test_a_report_of_very_many_items_is_bounded_and_begins_with_those_that_differ() -> None:
    count = MOST_REPORTED + 5
    found = evaluation({"one": [1.0] * count})
    assert page(found, found.document()).count('<div class="item') == MOST_REPORTED


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Registry, str, OpenAIServer]]:
    registry = Registry.init(tmp_path / "root", make_base(tmp_path / "base"), name="tiny")
    registry.publish("support", make_adapter(tmp_path / "adapter", seed=1), who="tester")
    digests = {"support@1": registry.version("support", 1).digest}
    models: dict[str, Any] = {"tiny": lambda _chat: "no", "support@1": last}
    with openai_server(models, digests=digests) as (url, running):
        yield registry, url, running


def call(served: tuple[Registry, str, OpenAIServer], *arguments: str) -> int:
    return wardrobe(["--root", str(served[0].root), "--url", served[1], "eval", *arguments])


def test_gate_writes_its_page_and_report_writes_it_again(
    tmp_path: Path, served: tuple[Registry, str, OpenAIServer], capsys: pytest.CaptureFixture[str]
) -> None:
    items = [{"prompt": f"{n}", "expected": f"{n}"} for n in range(30)]
    goal = tmp_path / "goal.yaml"
    goal.write_text(json.dumps({"suite": str(write_suite(tmp_path / "suite", items))}))
    out, html = tmp_path / "gate", tmp_path / "new" / "gate.html"
    options = ["gate", str(goal), "--model", "support@1", "--out", str(out), "--html", str(html)]
    assert call(served, *options, "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert html.read_text() == (out / "gate.html").read_text()
    assert_harmless(html.read_text())
    assert_harmless((out / "task" / "report.html").read_text())
    again = tmp_path / "again.html"
    assert wardrobe(["eval", "report", str(out), "--html", str(again), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == printed
    assert again.read_text() == html.read_text()
    assert wardrobe(["eval", "report", str(out)]) == 0
    assert "support@1: pass" in capsys.readouterr().out
    (out / "task" / "run.json").unlink()
    assert wardrobe(["eval", "report", str(out)]) == 2
    assert "lacks the answers of" in capsys.readouterr().err
    (out / "gate.json").write_text("{}")
    assert wardrobe(["eval", "report", str(out)]) == 2
    assert "holds no gate" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["run", "gate"])
def test_a_page_that_cannot_be_written_is_told_before_anything_is_asked(
    tmp_path: Path,
    served: tuple[Registry, str, OpenAIServer],
    capsys: pytest.CaptureFixture[str],
    command: str,
) -> None:
    suite = write_suite(tmp_path / "suite", [{"prompt": "1", "expected": "1"}])
    goal = tmp_path / "goal.yaml"
    goal.write_text(json.dumps({"suite": str(suite)}))
    subject = str(goal if command == "gate" else suite)
    options = [
        command,
        subject,
        "--model",
        "support@1",
        "--out",
        str(tmp_path / "o"),
        "--html",
        str(tmp_path),
    ]
    assert call(served, *options) == 2
    assert "is a folder" in capsys.readouterr().err
    assert served[2].asked == {}
