"""Promptfoo's assertions in the words of a suite.

Owns which assertion becomes what: texts, JSON and numbers are judged together as the figure `passed`, which
is Promptfoo's own; what needs a schema, a model or a measure is a figure of its own; the rest is told with
the way out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

from train.evaluation.promptfoo.draft import ConfigLosses
from train.evaluation.promptfoo.templates import Unfilled, fill

PASSED = "passed"
_TEXTS = frozenset({"equals", "contains", "icontains", "starts-with", "regex", "levenshtein"})
_LISTS = frozenset({"contains-any", "contains-all", "icontains-any", "icontains-all"})
_JSON = frozenset({"is-json", "contains-json"})
_RUBRICS = frozenset(
    {"llm-rubric", "model-graded-closedqa", "g-eval", "factuality", "model-graded-factuality"}
)
_MEASURES = {"rouge-n": "rouge_1", "bleu": "bleu", "gleu": "gleu", "meteor": "meteor"}
_OUT = {
    "javascript": "write it in Python as `grade(sample, item)`: a grader of `type: python` in the suite",
    "python": "write it as `grade(sample, item)`: a grader of `type: python` in the suite",
    "ruby": "write it in Python as `grade(sample, item)`: a grader of `type: python` in the suite",
    "webhook": "judge in a grader of `type: python`, or by a model: a grader of `type: judge`",
    "similar": "it needs a model for embeddings: use a grader of `type: rouge_l`, or a judge",
    "is-refusal": "use a grader of `type: refusal` with `expected: refuse`",
    "cost": "it is a figure of the old service: see `wardrobe loadtest` for time and load",
    "latency": "it is a figure of the old service: see `wardrobe loadtest` for time and load",
    "perplexity": "use a grader of `type: perplexity`",
    "is-valid-openai-tools-call": "use a grader of `type: arguments` with the suite's `tools`",
    "is-valid-function-call": "use a grader of `type: arguments` with the suite's `tools`",
    "is-valid-openai-function-call": "use a grader of `type: arguments` with the suite's `tools`",
    "tool-call-f1": "use a grader of `type: calls` with the items' `calls`",
    "finish-reason": "use a grader of `type: stops`",
}
_OTHERWISE = "write a grader of `type: python`, or a judge: see train/evaluation/README.md"
_RUBRIC = (
    "Judge the answer by the rubric. Reply with a number from 0 (misses it) to 1 (meets it).\n\n"
    "Rubric: {{item.rubric}}\n\nAnswer: {{sample.output_text}}"
)


@dataclass(slots=True)
class ItemGrading:
    """What judges one test: its plain assertions, its data for graders, and the names of these."""

    plain: list[dict[str, Any]] = field(default_factory=list)
    data: dict[str, Any] = field(default_factory=dict)
    graders: list[str] = field(default_factory=list)


@dataclass(slots=True)
class SuiteGraders:
    """The graders of a suite as its tests ask for them, by name; `judge` judges rubrics, None: nobody."""

    judge: str | None
    losses: ConfigLosses
    found: dict[str, dict[str, Any]] = field(default_factory=dict)

    def read(
        self, asserts: list[Any], values: Mapping[str, Any], place: str, threshold: object
    ) -> ItemGrading:
        """Return what judges a test with these assertions."""
        grading = ItemGrading()
        for number, given in enumerate(asserts, start=1):
            where = f"{place} assert {number}"
            if not isinstance(given, Mapping) or not isinstance(given.get("type"), str):
                self.losses.add(where, "is no assertion with a type", "correct it")
                continue
            try:
                self._one(dict(fill(dict(given), values, where, self.losses)), grading, where)
            except Unfilled as error:
                self.losses.add(where, f"has a template that cannot be filled in ({error})", "write it out")
        if grading.plain:
            self._ask(PASSED, {"type": "python", "name": PASSED, "source": _source()}, grading)
            grading.data["assert"] = grading.plain
            if isinstance(threshold, int | float):
                grading.data["threshold"] = float(threshold)
        return grading

    def _one(self, given: dict[str, Any], grading: ItemGrading, where: str) -> None:
        kind = given["type"].removeprefix("not-")
        for key in ("transform", "contextTransform"):
            if given.get(key) is not None:
                self.losses.add(where, f"{given['type']} with a {key} is not taken over", _OUT["javascript"])
                return
        value = given.get("value")
        if isinstance(value, str) and value.startswith("file://"):
            self.losses.add(
                where, f"{given['type']} takes its value from {value}", "write the value into the config"
            )
        elif kind in _JSON and isinstance(value, Mapping):
            self._schema(given, grading, where)
        elif kind in _RUBRICS and kind == given["type"]:
            self._rubric(given, grading, where)
        elif kind in _MEASURES and kind == given["type"]:
            self._measure(given, kind, grading, where)
        else:
            plain = self._plain(given, where)
            if plain is not None:
                grading.plain.append(plain)

    def _plain(self, given: dict[str, Any], where: str) -> dict[str, Any] | None:
        kind, value = given["type"].removeprefix("not-"), given.get("value")
        found = {key: given[key] for key in ("type", "weight", "threshold") if given.get(key) is not None}
        if kind == "assert-set":
            inner = [
                self._inner(one, f"{where}.{number}")
                for number, one in enumerate(given.get("assert") or [], 1)
            ]
            kept = [one for one in inner if one is not None]
            return {**found, "assert": kept} if kept else None
        if kind in _JSON and value is None:
            return found
        if kind == "equals" and value is not None:
            return {**found, "value": value if not isinstance(value, int | float) else str(value)}
        if kind in _TEXTS and isinstance(value, str | int | float):
            return self._text({**found, "value": str(value)}, kind, where)
        if kind in _LISTS and isinstance(value, list | str):
            parts = value if isinstance(value, list) else [part.strip() for part in value.split(",")]
            return {**found, "value": [str(part) for part in parts]}
        if kind == "word-count" and (span := _span(value)) is not None:
            return {**found, "value": span}
        what = f"{given['type']} is not taken over"
        self.losses.add(where, what, _OUT.get(kind, _OTHERWISE))
        return None

    def _inner(self, given: Any, where: str) -> dict[str, Any] | None:
        if (
            isinstance(given, Mapping)
            and isinstance(given.get("type"), str)
            and given.get("transform") is None
        ):
            return self._plain(dict(given), where)
        self.losses.add(where, "is an assertion that is not taken over", _OTHERWISE)
        return None

    def _text(self, found: dict[str, Any], kind: str, where: str) -> dict[str, Any] | None:
        if kind != "regex":
            return found
        pattern = re.sub(r"\(\?<(?![=!])", "(?P<", found["value"])
        try:
            re.compile(pattern)
        except re.error as error:
            self.losses.add(
                where, f"regex is none that Python knows ({error})", "write it as a Python pattern"
            )
            return None
        return {**found, "value": pattern}

    def _schema(self, given: dict[str, Any], grading: ItemGrading, where: str) -> None:
        if given["type"] != "is-json":
            self.losses.add(
                where, f"{given['type']} with a schema is not taken over", "use is-json with the schema"
            )
            return
        spec = {"type": "json", "schema": dict(given["value"]), "strict": True}
        self._ask(self._name("json", spec), spec, grading)

    def _rubric(self, given: dict[str, Any], grading: ItemGrading, where: str) -> None:
        if self.judge is None:
            self.losses.add(
                where, f"{given['type']} needs a model that judges", "name a served one: --judge MODEL"
            )
            return
        value = given.get("value")
        name = "rubric" if "rubric" not in grading.data else f"rubric_{len(grading.graders) + 1}"
        grading.data[name] = value if isinstance(value, str) else json.dumps(value)
        prompt = _RUBRIC.replace("{{item.rubric}}", f"{{{{item.{name}}}}}")
        grader = {
            "type": "score_model", "name": name, "model": self.judge, "range": [0, 1],
            "input": [{"role": "user", "content": prompt}],
        }  # fmt: skip
        self._ask(name, {"type": "openai", "name": name, "grader": grader}, grading)

    def _measure(self, given: dict[str, Any], kind: str, grading: ItemGrading, where: str) -> None:
        value = given.get("value")
        if not isinstance(value, str):
            self.losses.add(where, f"{kind} has no text to compare with", "give it one")
            return
        metric = _MEASURES[kind]
        grading.data[metric] = value
        grader = {
            "type": "text_similarity", "name": metric, "evaluation_metric": metric,
            "input": "{{sample.output_text}}", "reference": f"{{{{item.{metric}}}}}",
        }  # fmt: skip
        self._ask(metric, {"type": "openai", "name": metric, "grader": grader}, grading)
        if given.get("threshold") is not None:
            told = f"{kind} is the mean of its scores here, without the threshold {given['threshold']}"
            self.losses.add(where, told, "give the goal of a gate a minimum instead")

    def _name(self, kind: str, spec: dict[str, Any]) -> str:
        """Return the name of an equal grader of that kind, else a new one."""
        for name, one in self.found.items():
            if {key: value for key, value in one.items() if key != "name"} == spec:
                return name
        count = sum(one["type"] == kind for one in self.found.values())
        return kind if count == 0 else f"{kind}_{count + 1}"

    def _ask(self, name: str, spec: dict[str, Any], grading: ItemGrading) -> None:
        self.found.setdefault(name, {**spec, "name": name})
        if name not in grading.graders:
            grading.graders.append(name)


def _span(value: object) -> list[float] | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return [value, value]
    if isinstance(value, Mapping) and value.keys() & {"min", "max"}:
        return [float(value.get("min", 0)), float(value.get("max", 1e9))]
    return None


def _source() -> str:
    return (files("train.evaluation.promptfoo") / "passing.py").read_text(encoding="utf-8")
