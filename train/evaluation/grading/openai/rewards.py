"""The reward that one of OpenAI's graders gives to one answer.

Owns how each kind judges, and which of OpenAI's flags says why one could not. Asking a model is left to the
caller, who is told what to ask first (`questions`) and brings the replies (`reward`): an evaluation asks a
served model, the API's server asks itself. Invariant: a grader that cannot judge gives 0 and says why.
"""

from __future__ import annotations

import ast
import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from registry.errors import UsageError
from registry.tuning.graders import (
    Grader,
    LabelModel,
    MultiGrader,
    PythonCode,
    ScoreModel,
    SingleGrader,
    StringCheck,
    TextSimilarity,
    each_grader,
)
from train.evaluation.formats.specs import SandboxLimits
from train.evaluation.grading.openai import formula
from train.evaluation.grading.openai.similarity import require_metric, similarity
from train.evaluation.grading.openai.templates import GradedSample, NoValue, fill
from train.evaluation.grading.sandbox import call_grade
from train.evaluation.grading.texts import find_label

ALONE = ""
"""The name under which a grader that is no part of a multi grader asks."""
DEFAULT_REPLY_TOKENS = 64
ALL_SECONDS = 40.0
"""How long the Python graders of one answer may take together."""

_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:[eE]-?\d+)?")


@dataclass(frozen=True, slots=True)
class JudgeQuestion:
    """What to ask a model: its name, messages as (role, text), and how."""

    model: str
    messages: tuple[tuple[str, str], ...]
    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class JudgeReply:
    """What a model said, or why it did not."""

    text: str = ""
    error: str = ""
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class GraderReward:
    """One reward; `flag` is OpenAI's word for why there is none, `parts` are a multi grader's."""

    value: float
    flag: str = ""
    details: str = ""
    tokens: int | None = None
    parts: Mapping[str, float] = field(default_factory=dict)


def check(grader: Grader) -> None:
    """Pass where the grader can judge here.

    Raises: UsageError.
    """
    for one in each_grader(grader):
        if isinstance(one, TextSimilarity):
            require_metric(one.evaluation_metric)
        elif isinstance(one, PythonCode):
            _check_source(one)
    if not isinstance(grader, MultiGrader):
        return
    try:
        unknown = sorted(formula.names(grader.calculate_output) - set(grader.graders))
    except formula.BadFormula as error:
        raise UsageError("grader.calculate_output", str(error), "correct it", param="grader") from error
    if unknown:
        fact = f"names {unknown[0]}, which is no grader"
        raise UsageError(
            "grader.calculate_output", fact, f"graders: {', '.join(grader.graders)}", param="grader"
        )


def _check_source(grader: PythonCode) -> None:
    subject = f"grader {grader.name}.source"
    try:
        tree = ast.parse(grader.source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise UsageError(subject, f"is no Python: {error}", "correct it", param="grader") from error
    if not any(isinstance(node, ast.FunctionDef) and node.name == "grade" for node in tree.body):
        raise UsageError(
            subject, "defines no function `grade`", "write `def grade(sample, item)`", param="grader"
        )


def questions(grader: Grader, sample: GradedSample) -> dict[str, JudgeQuestion]:
    """Return what must be asked before `reward`, by graders' names; templates without a value ask nothing."""
    named = grader.graders if isinstance(grader, MultiGrader) else {ALONE: grader}
    found = {}
    for name, one in named.items():
        if isinstance(one, ScoreModel | LabelModel):
            try:
                found[name] = _question(one, sample)
            except NoValue:
                continue  # `reward` says so
    return found


def reward(
    grader: Grader,
    sample: GradedSample,
    replies: Mapping[str, JudgeReply],
    limits: SandboxLimits | None = None,
) -> GraderReward:
    """Return the reward of one answer, given the replies to `questions`.

    Raises: UsageError: a metric that is not to be had here.
    """
    deadline = time.monotonic() + ALL_SECONDS
    if not isinstance(grader, MultiGrader):
        return _single(grader, sample, replies.get(ALONE), limits or SandboxLimits(), deadline)
    found = {
        name: _single(one, sample, replies.get(name), limits or SandboxLimits(), deadline)
        for name, one in grader.graders.items()
    }
    parts = {name: one.value for name, one in found.items()}
    tokens = [one.tokens for one in found.values() if one.tokens is not None]
    failed = next(((name, one) for name, one in found.items() if one.flag), None)
    value, flag, details = 0.0, "", ""
    try:
        value = formula.calculate(grader.calculate_output, parts)
    except formula.BadFormula as error:
        flag, details = "formula_parse_error", str(error)
    if failed is not None:
        flag, details = failed[1].flag, f"{failed[0]}: {failed[1].details}"
    return GraderReward(value, flag, details, sum(tokens) if tokens else None, parts)


def scaled(grader: Grader, value: float) -> float:
    """Return a reward as a share, 0 to 1, where its grader says in which range it lies."""
    if not isinstance(grader, ScoreModel):
        return value
    low, high = grader.bounds
    return (value - low) / (high - low)


def _single(
    grader: SingleGrader,
    sample: GradedSample,
    reply: JudgeReply | None,
    limits: SandboxLimits,
    deadline: float,
) -> GraderReward:
    try:
        match grader:
            case StringCheck():
                return GraderReward(float(_compare(grader, sample)))
            case TextSimilarity():
                texts = fill(grader.input, sample), fill(grader.reference, sample)
                return GraderReward(similarity(grader.evaluation_metric, *texts))
            case PythonCode():
                return _python(grader, sample, limits, deadline)
            case ScoreModel() | LabelModel():
                _question(grader, sample)  # tells of a value that is not there
                return _reply(grader, reply)
    except NoValue as error:
        return GraderReward(
            0.0, "sample_parse_error" if error.parsing else "invalid_variable_error", str(error)
        )


def _compare(grader: StringCheck, sample: GradedSample) -> bool:
    text, reference = fill(grader.input, sample), fill(grader.reference, sample)
    match grader.operation:
        case "eq":
            return text == reference
        case "ne":
            return text != reference
        case "like":
            return reference in text
        case "ilike":
            return reference.casefold() in text.casefold()


def _python(grader: PythonCode, sample: GradedSample, limits: SandboxLimits, deadline: float) -> GraderReward:
    left = min(limits.timeout_seconds, deadline - time.monotonic())
    if left <= 0:
        return GraderReward(0.0, "python_grader_server_error", "the graders before it took all the time")
    held = limits.model_copy(update={"timeout_seconds": left})
    outcome = call_grade(grader.source, sample.document(), dict(sample.item), held)
    if outcome.value is None or not math.isfinite(outcome.value):
        details = outcome.reason or f"returned {outcome.value}"
        return GraderReward(0.0, "python_grader_runtime_error", details)
    return GraderReward(outcome.value)


def _question(grader: ScoreModel | LabelModel, sample: GradedSample) -> JudgeQuestion:
    told = [
        ("system" if one.role == "developer" else one.role, fill(one.text, sample)) for one in grader.input
    ]
    role, text = told[-1]
    told[-1] = (role, f"{text}\n\n{_form(grader)}")
    params = grader.sampling_params
    return JudgeQuestion(
        model=grader.model,
        messages=tuple(told),
        max_tokens=(params and params.max_completions_tokens) or DEFAULT_REPLY_TOKENS,
        temperature=0.0 if params is None or params.temperature is None else params.temperature,
        top_p=1.0 if params is None or params.top_p is None else params.top_p,
        seed=None if params is None else params.seed,
    )


def _form(grader: ScoreModel | LabelModel) -> str:
    if isinstance(grader, LabelModel):
        return f"Reply with one of these labels alone: {', '.join(grader.labels)}."
    low, high = grader.bounds
    return f"Reply with one number from {low:g} to {high:g} alone."


def _reply(grader: ScoreModel | LabelModel, reply: JudgeReply | None) -> GraderReward:
    if reply is None or reply.error:
        return GraderReward(
            0.0, "model_grader_server_error", "nobody asked" if reply is None else reply.error
        )
    said = f"the model said: {reply.text[:200]}"
    if isinstance(grader, LabelModel):
        label = find_label(reply.text, grader.labels, None)
        if label is None:
            return GraderReward(0.0, "model_grader_parse_error", said, reply.tokens)
        return GraderReward(float(label in grader.passing_labels), tokens=reply.tokens)
    low, high = grader.bounds
    found = _NUMBER.search(reply.text)
    if found is None or not low <= float(found[0]) <= high:
        return GraderReward(0.0, "model_grader_parse_error", said, reply.tokens)
    return GraderReward(float(found[0]), tokens=reply.tokens)
