"""Suites with tools: rows of training are items, calls are judged as JSON, and answers carry them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from registry.errors import UsageError
from tests.fakes.openai_server import openai_server
from train.dataset.records import ToolCall
from train.evaluation.formats.forms import SuiteFile, SuiteItem
from train.evaluation.formats.specs import Calls
from train.evaluation.formats.suites import Suite, build_suite
from train.evaluation.grading.calling import judge_arguments, judge_calls
from train.evaluation.grading.grades import ModelAnswer
from train.evaluation.journal import AnswerJournal
from train.evaluation.models.served import ServedModel
from train.evaluation.reports.evaluation import page
from train.evaluation.results import EvaluationResult, load, save
from train.evaluation.runner import EvaluatedArm, evaluate, with_shots

SCHEMA = {"type": "object", "properties": {"on": {"type": "boolean"}}, "required": ["on"]}
TOOL: dict[str, Any] = {"type": "function", "function": {"name": "lamp", "parameters": SCHEMA}}
CALL = {"id": "c1", "type": "function", "function": {"name": "lamp", "arguments": '{"on": true}'}}
ROW: dict[str, Any] = {
    "messages": [{"role": "user", "content": "On"}, {"role": "assistant", "tool_calls": [CALL]}],
    "tools": [TOOL],
    "parallel_tool_calls": True,
}  # fmt: skip
GRADERS: list[dict[str, Any]] = [{"type": "calls"}, {"type": "arguments"}]


def suite(*items: dict[str, Any], graders: list[dict[str, Any]] = GRADERS, **keys: Any) -> Suite:
    written = SuiteFile.model_validate({"name": "calls", "items": [], "graders": graders, **keys})
    return build_suite("calls.yaml", written, [SuiteItem.model_validate(item) for item in items])


def called(*calls: tuple[str, str]) -> ModelAnswer:
    return ModelAnswer("", "tool_calls", calls=tuple(ToolCall(*call) for call in calls))


def test_a_row_of_training_is_an_item_that_expects_its_last_answer() -> None:
    item = suite(ROW).items[0]
    assert item.calls is not None
    assert [(call.name, call.arguments) for call in item.calls] == [("lamp", {"on": True})]
    assert (len(item.messages), item.answers) == (1, ())
    said = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]}
    plain = suite(said, graders=[{"type": "exact"}]).items[0]
    assert (plain.answers, plain.calls) == (("Ho",), ())


def test_an_item_may_go_on_after_the_result_of_a_tool() -> None:
    result = {"role": "tool", "tool_call_id": "c1", "content": "ok"}
    row = {**ROW, "messages": [*ROW["messages"], result], "calls": []}
    found = suite(row).questions[0]
    assert [message.role for message in found] == ["user", "assistant", "tool"]
    assert found[1].written["tool_calls"] == [CALL]


def test_the_tools_of_a_suite_are_those_of_every_item_without_its_own() -> None:
    found = suite({"prompt": "On", "calls": []}, tools=[TOOL])
    assert found.items[0].tools[0]["function"] == {**TOOL["function"], "description": None}


def test_a_suite_without_tools_has_the_digest_that_it_always_had() -> None:
    found = suite({"prompt": "Hi", "expected": "Ho"}, graders=[{"type": "exact"}])
    assert found.sha256 == "00236fdf267d27ccb3778f33c4b3d74cd973269a9612c1905004caa75e7d862d"


@pytest.mark.parametrize(
    ("item", "fact"),
    [
        ({"prompt": "On", "calls": []}, "has no `tools`, which grader calls needs"),
        ({"prompt": "On", "tools": [TOOL]}, "has no `calls`, which grader calls needs"),
    ],
)
def test_an_item_without_what_its_grader_needs_is_named(item: dict[str, Any], fact: str) -> None:
    with pytest.raises(UsageError, match=fact):
        suite(item)


@pytest.mark.parametrize(
    ("wanted", "found", "right"),
    [
        ([("lamp", {"on": True})], called(("lamp", '{"on":true}')), True),
        ([("lamp", {"n": 1, "on": True})], called(("lamp", '{"on": true, "n": 1.0}')), True),
        ([("lamp", {"on": True})], called(("lamp", '{"on": 1}')), False),
        ([("lamp", {"on": True})], called(("lamp", '{"on": "true"}')), False),
        ([("lamp", {})], called(("lamp", "")), True),
        ([("lamp", {})], called(("lamp", "{no json")), False),
        ([("a", {}), ("b", {})], called(("b", "{}"), ("a", "{}")), True),
        ([("a", {})], called(("a", "{}"), ("a", "{}")), False),
        ([("a", {"x": [1, 2]})], called(("a", '{"x": [2, 1]}')), False),
        ([("lamp", {"on": True})], ModelAnswer('lamp({"on": true})'), False),
        ([], ModelAnswer("No call is needed."), True),
        ([], called(("lamp", "{}")), False),
    ],
)
def test_calls_are_right_when_names_and_arguments_are_equal_as_json_in_any_order(
    wanted: list[tuple[str, dict[str, Any]]], found: ModelAnswer, right: bool
) -> None:
    calls = [{"name": name, "arguments": arguments} for name, arguments in wanted]
    item = SuiteItem.model_validate({"prompt": "x", "tools": [TOOL], "calls": calls})
    assert judge_calls(Calls(type="calls"), item, found).score == float(right)


def test_the_names_alone_may_be_judged() -> None:
    item = suite(ROW).items[0]
    assert judge_calls(Calls(type="calls", arguments=False), item, called(("lamp", "{}"))).score == 1.0


@pytest.mark.parametrize(
    ("found", "score", "fact"),
    [
        (called(("lamp", '{"on": false}')), 1.0, "lamp("),
        (called(("lamp", '{"on": "no"}')), 0.0, "is not of type 'boolean'"),
        (called(("lamp", "{")), 0.0, "no JSON"),
        (called(("oven", "{}")), 0.0, "calls oven, which is not a tool"),
        (ModelAnswer("On."), 0.0, "calls nothing"),
    ],
)
def test_arguments_are_right_when_they_fit_the_tools_schema(
    found: ModelAnswer, score: float, fact: str
) -> None:
    grade = judge_arguments(suite(ROW).items[0], found)
    assert (grade.score, fact in grade.found) == (score, True)


class Calling:
    """A model that calls whatever tool it is given."""

    name = "calling"

    def __init__(self) -> None:
        self.tools: list[str] = []

    def answer(self, messages: Any, suite: Suite, tools: Any = ()) -> ModelAnswer:
        self.tools = [tool["function"]["name"] for tool in tools]
        return called((self.tools[0], '{"on": true}'))

    def log_probability(self, messages: Any, expected: str, suite: Suite) -> tuple[float, int]:
        raise NotImplementedError


def test_an_evaluation_keeps_calls_in_its_folder_its_journal_and_its_page(tmp_path: Path) -> None:
    asked, model = suite(ROW), Calling()
    results = evaluate(asked, [EvaluatedArm("m", model)], lambda _: model)
    assert model.tools == ["lamp"]
    evaluation = EvaluationResult.finished(asked, results, "offline")
    document = save(evaluation, tmp_path / "run")
    assert {name: one["all"].value for name, one in document.arms[0].figures.items()} == {
        "calls": 1.0,
        "arguments": 1.0,
    }
    kept = load(tmp_path / "run")
    assert kept.arms[0].samples == results[0].samples
    assert kept.lines() == evaluation.lines()
    assert "lamp({&#34;on&#34;: true})" in page(kept, document)
    journal = AnswerJournal(tmp_path / "half")
    journal.add(asked, EvaluatedArm("m", model), 0, results[0].samples[0])
    assert AnswerJournal(tmp_path / "half").find(asked, EvaluatedArm("m", model), 0) == results[0].samples[0]


def test_a_shot_with_calls_shows_the_call() -> None:
    written = SuiteFile.model_validate({"name": "calls", "items": [], "graders": GRADERS})
    item = SuiteItem.model_validate(ROW)
    question = with_shots(build_suite("calls.yaml", written, [item], [item]), 1)[0]
    assert [message.role for message in question] == ["user", "assistant", "user"]
    assert question[1].written["tool_calls"][0]["function"] == CALL["function"]  # type: ignore[index,call-overload]


def test_a_served_model_is_given_the_tools_and_its_calls_are_read() -> None:
    message = {"role": "assistant", "content": None, "tool_calls": [CALL]}
    asked = suite(ROW)
    with openai_server({"m": lambda _chat: message}) as (url, server):
        model = ServedModel(url, "m")
        found = model.answer(asked.questions[0], asked, asked.items[0].tools)
        model.close()
    assert (found.text, found.calls) == ("", (ToolCall("lamp", '{"on": true}', "c1"),))
    assert server.seen[0]["tools"] == list(asked.items[0].tools)
    assert server.seen[0]["messages"] == [{"role": "user", "content": "On"}]
