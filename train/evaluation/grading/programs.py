"""Graders that run code: `python` and `program`. The child is `sandbox.py`'s."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING

from train.evaluation.formats.forms import SuiteItem
from train.evaluation.formats.specs import Program, Python
from train.evaluation.grading.grades import Grade, ModelAnswer
from train.evaluation.grading.sandbox import call_grade, run_program
from train.evaluation.grading.texts import code_of, unfence

if TYPE_CHECKING:
    from pydantic import JsonValue


def run_with(spec: Python | Program) -> Callable[[int, SuiteItem, ModelAnswer], Grade]:
    """Return the function that judges one answer by running code.

    A grader that fails (exception, time, memory) scores 0 and says why in `found`; so does a value outside
    0…1.
    """
    if isinstance(spec, Program):
        return lambda _index, item, sample: _program(spec, item, sample)
    return lambda _index, item, sample: _python(spec, item, sample)


def assemble(prompt: str, answer: str, test: str) -> str:
    """Return the program that an answer and the item's tests make.

    An answer that defines the prompt's function itself stands alone; else it continues the prompt.
    """
    code = code_of(answer)
    name = _function(prompt)
    body = code if name and f"def {name}(" in code else prompt + code
    return f"{_head(prompt)}{body}\n\n{test}\n"


def _program(spec: Program, item: SuiteItem, sample: ModelAnswer) -> Grade:
    prompt, test = str(item.data.get("prompt", "")), str(item.data.get("test", ""))
    outcome = run_program(assemble(prompt, sample.text, test), spec.limits)
    return Grade(float(outcome.value == 1.0), (), outcome.reason)


def _python(spec: Python, item: SuiteItem, sample: ModelAnswer) -> Grade:
    asked: dict[str, JsonValue] = {
        "output_text": sample.text,
        "output_json": _parsed(sample.text),
        "finish": sample.finish,
        "calls": [{"name": call.name, "arguments": _parsed(call.arguments)} for call in sample.calls],
    }
    about: dict[str, JsonValue] = {**item.data, "expected": item.model_dump(mode="json")["expected"]}
    outcome = call_grade(spec.source or "", asked, about, spec.limits)
    if outcome.value is None:
        return Grade(0.0, (), outcome.reason)
    if not 0 <= outcome.value <= 1:
        return Grade(0.0, (), f"returned {outcome.value:g}, which is not in 0…1")
    return Grade(outcome.value)


def _parsed(text: str) -> JsonValue:
    try:
        value: JsonValue = json.loads(unfence(text))
    except (ValueError, RecursionError):
        return None
    return value


def _function(prompt: str) -> str | None:
    definitions = [line for line in prompt.splitlines() if line.startswith("def ")]
    return definitions[-1][4:].partition("(")[0].strip() if definitions else None


def _head(prompt: str) -> str:
    """Return the imports of the prompt, which an answer that stands alone may leave out."""
    lines = [line for line in prompt.splitlines() if line.startswith(("import ", "from "))]
    return "".join(f"{line}\n" for line in lines)
