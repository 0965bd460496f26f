"""How calls are judged: against the expected ones, and against the schemas of the tools. Pure.

Owns when two calls are the same: the same name, and arguments that are equal as JSON values.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from train.dataset.checks.uses import misfit
from train.dataset.records import ToolCall
from train.evaluation.formats import specs
from train.evaluation.formats.forms import ExpectedCall, SuiteItem
from train.evaluation.grading.grades import Grade, ModelAnswer


def judge_calls(spec: specs.Calls, item: SuiteItem, sample: ModelAnswer) -> Grade:
    """Return 1 if the answer calls exactly what is expected; the order of parallel calls does not count."""
    wanted = [_expected(spec, call) for call in item.calls or ()]
    found = [_found(spec, call) for call in sample.calls]
    return Grade(float(_same(wanted, found)), (), told(sample.calls))


def judge_arguments(item: SuiteItem, sample: ModelAnswer) -> Grade:
    """Return 1 if every call names a tool of the item and its arguments fit the schema."""
    tools: Sequence[Mapping[str, Any]] = item.tools
    functions = {tool["function"]["name"]: tool["function"] for tool in tools}
    for call in sample.calls:
        if call.name not in functions:
            return Grade(0.0, (), f"calls {call.name}, which is not a tool"[:500])
        try:
            fault = misfit(call, functions[call.name]["parameters"])
        except ValueError:
            fault = "the arguments are no JSON"
        if fault:
            return Grade(0.0, (), f"{call.name}: {fault}"[:500])
    if not sample.calls and item.calls != ():
        return Grade(0.0, (), "calls nothing")
    return Grade(1.0, (), told(sample.calls))


def told(calls: Sequence[ToolCall]) -> str:
    """Return the calls in one line, for people."""
    return "; ".join(f"{call.name}({call.arguments})" for call in calls)[:500] or "calls nothing"


def _expected(spec: specs.Calls, call: ExpectedCall) -> str:
    return _key(spec, call.name, dict(call.arguments))


def _found(spec: specs.Calls, call: ToolCall) -> str:
    try:
        arguments = json.loads(call.arguments or "{}")
    except ValueError:
        arguments = call.arguments
    return _key(spec, call.name, arguments)


def _key(spec: specs.Calls, name: str, arguments: object) -> str:
    # Sorted keys make the texts equal where the values are; 1 and 1.0 are one number in JSON.
    return json.dumps([name, _plain(arguments) if spec.arguments else None], sort_keys=True)


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _same(wanted: list[str], found: list[str]) -> bool:
    return sorted(wanted) == sorted(found)
