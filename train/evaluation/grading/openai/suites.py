"""One of OpenAI's graders as a suite's grader: the item is the suite's, who judges is a served model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from train.evaluation.formats.forms import Sampling, SuiteItem, SuiteMessage
from train.evaluation.formats.specs import OpenaiGrader
from train.evaluation.grading.grades import Grade, GraderInput, ModelAnswer
from train.evaluation.grading.openai.rewards import (
    JudgeQuestion,
    JudgeReply,
    check,
    questions,
    reward,
    scaled,
)
from train.evaluation.grading.openai.templates import GradedSample

if TYPE_CHECKING:
    from pydantic import JsonValue


def judge_with(spec: OpenaiGrader, hearing: GraderInput) -> Callable[[int, SuiteItem, ModelAnswer], Grade]:
    """Return the function that judges one answer; a reward that is no share of 1 scores 0 and says so.

    Raises: UsageError: the grader cannot judge here.
    """
    check(spec.grader)

    def grade(_index: int, item: SuiteItem, answer: ModelAnswer) -> Grade:
        expected = item.model_dump(mode="json")["expected"]
        about: dict[str, JsonValue] = {"expected": expected, "reference": expected, **item.data}
        tools: tuple[JsonValue, ...] = tuple(
            {"function": {"name": call.name, "arguments": call.arguments}} for call in answer.calls
        )
        sample = GradedSample(answer.text, about, tools)
        replies = {name: _ask(one, hearing) for name, one in questions(spec.grader, sample).items()}
        found = reward(spec.grader, sample, replies, spec.limits)
        share = scaled(spec.grader, found.value)
        if found.flag:
            return Grade(0.0, (), f"{found.flag}: {found.details}"[:500])
        if not 0 <= share <= 1:
            return Grade(0.0, (), f"gave {share:g}, which is not in 0…1")
        return Grade(share)

    return grade


def _ask(question: JudgeQuestion, hearing: GraderInput) -> JudgeReply:
    sampling = Sampling(
        max_tokens=question.max_tokens, temperature=question.temperature, top_p=question.top_p
    )
    suite = replace(hearing.suite, api="chat", sampling=sampling)
    messages = tuple(
        SuiteMessage.model_validate({"role": role, "content": text}) for role, text in question.messages
    )
    answer = hearing.judge(question.model).answer(messages, suite)
    if answer.error is not None:
        return JudgeReply(error=answer.error)
    return JudgeReply(answer.text, tokens=answer.prompt_tokens + answer.completion_tokens)
