"""How each grader judges: one function per kind, and the one place that calls them.

Owns the graders that look at text, and the order of a hearing. Programs are `programs.py`, the judge is
`judge.py`. Invariant: a sample without an answer is judged by nobody; nothing here knows which model is
the candidate.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from typing import Any

from registry.errors import UsageError
from train.dataset.checks.uses import validator_of
from train.evaluation.formats import specs
from train.evaluation.formats.forms import SuiteItem, judges
from train.evaluation.grading.calling import judge_arguments, judge_calls
from train.evaluation.grading.grades import NOT_JUDGED, Grade, GraderInput, ModelAnswer
from train.evaluation.grading.rouge import rouge_l
from train.evaluation.grading.texts import extract, find_label, fold, unfence


def judge_all(spec: specs.Spec, hearing: GraderInput) -> list[Grade]:
    """Return one grade per item, in order.

    Raises: WardrobeError: what the grader needs is not there (a package, a second model, log-probabilities).
    """
    if isinstance(spec, specs.Agreement):
        return _agreement(spec, hearing)
    one = _one(spec, hearing)

    def grade(index: int) -> Grade:
        item, sample = hearing.items[index], hearing.samples[index]
        if sample.error is not None or not judges(spec, item):
            return NOT_JUDGED
        return one(index, item, sample)

    return hearing.spread(grade, range(len(hearing.items)))


def _one(spec: specs.Spec, hearing: GraderInput) -> Callable[[int, SuiteItem, ModelAnswer], Grade]:
    if isinstance(spec, specs.Judge):
        from train.evaluation.grading.judge import judge_with

        return judge_with(spec, hearing)
    if isinstance(spec, specs.OpenaiGrader):
        from train.evaluation.grading.openai.suites import judge_with as judge_as_openai

        return judge_as_openai(spec, hearing)
    if isinstance(spec, specs.Python | specs.Program):
        from train.evaluation.grading.programs import run_with

        return run_with(spec)
    if isinstance(spec, specs.Bleu | specs.Chrf):
        from train.evaluation.grading.corpus import counts_of

        counts = counts_of(spec)
        return lambda _index, item, sample: counts(sample.text, item.answers)
    if isinstance(spec, specs.Perplexity):
        return _perplexity(hearing)
    if isinstance(spec, specs.Json):
        return _json(spec)
    return lambda _index, item, sample: _text(spec, item, sample)


def _text(spec: specs.Spec, item: SuiteItem, sample: ModelAnswer) -> Grade:
    match spec:
        case specs.Exact() | specs.Includes():
            return _exact(spec, item, sample)
        case specs.Regex():
            return _binary((re.search(spec.pattern, sample.text) is not None) != spec.negate)
        case specs.Accuracy() | specs.MacroF1():
            return _label(spec, item, sample)
        case specs.RougeL():
            return Grade(rouge_l(sample.text, item.answers))
        case specs.Refusal():
            return _refusal(spec, item, sample)
        case specs.Calls():
            return judge_calls(spec, item, sample)
        case specs.Arguments():
            return judge_arguments(item, sample)
        case specs.Stops():
            return _binary(sample.finish in {"stop", "tool_calls"}, sample.finish)
    raise UsageError(f"grader {spec.label}", "has no implementation", "use another")


def _exact(spec: specs.Exact | specs.Includes, item: SuiteItem, sample: ModelAnswer) -> Grade:
    found = extract(sample.text, spec.extract)
    if found is None:
        return _binary(None)
    folded = fold(found, casefold=spec.casefold, punctuation=spec.punctuation)
    wanted = [fold(text, casefold=spec.casefold, punctuation=spec.punctuation) for text in item.answers]
    if isinstance(spec, specs.Exact):
        return _binary(folded in wanted, folded)
    return _binary(any(text in folded for text in wanted), folded)


def _label(spec: specs.Accuracy | specs.MacroF1, item: SuiteItem, sample: ModelAnswer) -> Grade:
    found = find_label(sample.text, spec.labels, spec.extract, casefold=spec.casefold)
    expected = spec.labels.index(item.answers[0])
    right = found == item.answers[0]
    if isinstance(spec, specs.Accuracy):
        return _binary(right, found or "")
    index = spec.labels.index(found) if found is not None else -1
    return Grade(float(right), (float(expected), float(index)), found or "")


def _refusal(spec: specs.Refusal, item: SuiteItem, sample: ModelAnswer) -> Grade:
    refused = any(re.search(pattern, sample.text, re.IGNORECASE) for pattern in spec.patterns)
    wanted = item.answers[0]
    if wanted not in {"refuse", "comply"}:
        raise UsageError(
            f"item {item.id}", f"expects {wanted!r} of a refusal grader", "write refuse or comply"
        )
    return _binary(refused == (wanted == "refuse"), "refused" if refused else "complied")


def _json(spec: specs.Json) -> Callable[[int, SuiteItem, ModelAnswer], Grade]:
    complaint = _complaint_of(spec)

    def grade(_index: int, _item: SuiteItem, sample: ModelAnswer) -> Grade:
        text = sample.text if spec.strict else unfence(sample.text)
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            return _binary(None, f"no JSON: {error}")
        problem = complaint(value)
        return _binary(problem is None, problem or "")

    return grade


def _complaint_of(spec: specs.Json) -> Callable[[Any], str | None]:
    if spec.schema_ is None:
        return lambda _value: None
    try:
        import jsonschema
    except ImportError as error:
        raise UsageError(
            f"grader {spec.label}", "needs jsonschema", "pip install 'wardrobe-llm[eval]'"
        ) from error
    try:
        validator = validator_of(spec.schema_)
    except jsonschema.SchemaError as error:
        raise UsageError(
            f"grader {spec.label}", f"its schema is none: {error.message}", "correct it"
        ) from error

    def complaint(value: Any) -> str | None:
        first = jsonschema.exceptions.best_match(validator.iter_errors(value))
        return None if first is None else f"{first.json_path}: {first.message}"

    return complaint


def _perplexity(hearing: GraderInput) -> Callable[[int, SuiteItem, ModelAnswer], Grade]:
    def grade(index: int, item: SuiteItem, _sample: ModelAnswer) -> Grade:
        total, tokens = hearing.model.log_probability(
            hearing.questions[index], item.answers[0], hearing.suite
        )
        if tokens == 0:
            return NOT_JUDGED
        return Grade(math.exp(min(-total / tokens, 700.0)), (total, float(tokens)))

    return grade


def _agreement(spec: specs.Agreement, hearing: GraderInput) -> list[Grade]:
    grades = [NOT_JUDGED] * len(hearing.items)
    pairs: dict[str, list[int]] = {}
    for index, item in enumerate(hearing.items):
        if item.pair is not None and judges(spec, item):
            pairs.setdefault(item.pair, []).append(index)
    for members in pairs.values():
        if all(hearing.samples[index].error is None for index in members):
            answers = {_answer(spec, hearing.samples[index].text) for index in members}
            grades[members[0]] = _binary(
                len(answers) == 1 and None not in answers, " | ".join(sorted(str(one) for one in answers))
            )
    return grades


def _answer(spec: specs.Agreement, text: str) -> str | None:
    if spec.labels:
        return find_label(text, spec.labels, spec.extract)
    found = extract(text, spec.extract)
    return None if found is None else fold(found, casefold=True, punctuation=False)


def _binary(right: object, found: str = "") -> Grade:
    return Grade(float(bool(right)), (), found[:500])
