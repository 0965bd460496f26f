"""A served model as judge: a mark for one answer, or which of two is better, asked in both orders.

Owns the questions put to a judge and how its words are read. Invariant: of two answers each stands first
once, so a judge that always prefers one place says 0.5 of everything, and says so in `found`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from registry.errors import UsageError
from train.evaluation.formats.forms import Sampling, SuiteItem, SuiteMessage
from train.evaluation.formats.specs import Judge
from train.evaluation.formats.suites import Suite
from train.evaluation.grading.grades import NOT_JUDGED, Grade, GraderInput, Model, ModelAnswer

_MARK = re.compile(r"\b(10|[1-9])\b")
_CHOICE = re.compile(r"\b(A|B|TIE)\b")
_SCORE = """{rubric}

[Question]
{question}

[Answer]
{answer}

Give a mark from 1 (useless) to 10 (perfect). Reply with the number alone."""
_CHOOSE = """{rubric}

[Question]
{question}

[Answer A]
{first}

[Answer B]
{second}

Which answer is better? Reply with one word: A, B or TIE."""


def judge_with(spec: Judge, hearing: GraderInput) -> Callable[[int, SuiteItem, ModelAnswer], Grade]:
    """Return the function that has one answer judged.

    Raises: UsageError: `versus: against` without a second model.
    """
    if spec.versus == "against" and hearing.others is None:
        raise UsageError(f"grader {spec.label}", "compares with a second model", "add --against")
    judge = hearing.judge(spec.model)
    suite = replace(hearing.suite, api="chat", sampling=Sampling(max_tokens=16))

    def grade(index: int, item: SuiteItem, sample: ModelAnswer) -> Grade:
        question = transcript(hearing.questions[index])
        if spec.versus == "score":
            return _mark(spec, judge, suite, question, sample.text)
        if spec.versus == "expected":
            return _better(
                spec, judge, suite, question, sample.text, item.answers[0] if item.answers else None
            )
        other = hearing.others[index] if hearing.others is not None else None
        return _better(
            spec, judge, suite, question, sample.text, other.text if other and not other.error else None
        )

    return grade


def transcript(messages: Sequence[SuiteMessage]) -> str:
    """Return a conversation as text; one question alone stands as it is."""
    if len(messages) == 1:
        return messages[0].content
    return "\n".join(f"{message.role}: {message.content}" for message in messages)


def _mark(spec: Judge, judge: Model, suite: Suite, question: str, answer: str) -> Grade:
    reply = _ask(judge, suite, _SCORE.format(rubric=spec.rubric, question=question, answer=answer))
    match = _MARK.search(reply)
    if match is None:
        return Grade(None, (), f"the judge gave no mark: {reply[:200]}")
    return Grade((int(match[1]) - 1) / 9, (), match[1])


def _better(spec: Judge, judge: Model, suite: Suite, question: str, mine: str, theirs: str | None) -> Grade:
    if theirs is None:
        return NOT_JUDGED
    forward = _choice(spec, judge, suite, question, mine, theirs)
    backward = _choice(spec, judge, suite, question, theirs, mine)
    if forward is None or backward is None:
        return Grade(None, (), "the judge chose nothing")
    words = f"first {forward}, swapped {backward}"
    if (forward, backward) == ("A", "B"):
        return Grade(1.0, (), words)
    if (forward, backward) == ("B", "A"):
        return Grade(0.0, (), words)
    return Grade(0.5, (), f"{words}: the place decided" if forward == backward != "TIE" else words)


def _choice(spec: Judge, judge: Model, suite: Suite, question: str, first: str, second: str) -> str | None:
    text = _CHOOSE.format(rubric=spec.rubric, question=question, first=first, second=second)
    match = _CHOICE.search(_ask(judge, suite, text).upper())
    return match[1] if match else None


def _ask(judge: Model, suite: Suite, text: str) -> str:
    sample = judge.answer((SuiteMessage(role="user", content=text),), suite)
    return "" if sample.error is not None else sample.text
