"""One suite, several models: ask everything, judge everything, in the same order.

Owns the order of an evaluation and its concurrency. Invariants: every model is asked the same questions
with the same sampling; a model's answers are complete before any is judged; an answer that failed is kept
with its reason.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol, TypeVar

from registry.errors import UsageError
from train.evaluation.formats.forms import SuiteItem, SuiteMessage, called
from train.evaluation.formats.specs import Judge
from train.evaluation.formats.suites import Suite
from train.evaluation.grading.graders import judge_all
from train.evaluation.grading.grades import Grade, GraderInput, Model, ModelAnswer

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class EvaluatedArm:
    """One way of answering: a model, and how many examples stand before each question."""

    label: str
    model: Model
    shots: int = 0
    digest: str | None = None


@dataclass(frozen=True, slots=True)
class ArmResult:
    """What one arm said, in the suite's order, and how each grader judged it."""

    label: str
    model: str
    digest: str | None
    shots: int
    samples: tuple[ModelAnswer, ...]
    grades: dict[str, tuple[Grade, ...]]

    @property
    def errors(self) -> int:
        """Return how many questions have no answer."""
        return sum(sample.error is not None for sample in self.samples)


class Memory(Protocol):
    """Answers that an interrupted run left, and where this one keeps its own."""

    def find(self, suite: Suite, arm: EvaluatedArm, index: int) -> ModelAnswer | None:
        """Return an answer of before."""

    def add(self, suite: Suite, arm: EvaluatedArm, index: int, sample: ModelAnswer) -> None:
        """Keep an answer."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How a run is driven: questions in flight, who is told of each answer, and what is remembered."""

    concurrency: int = 8
    advance: Callable[[int], None] = lambda _count: None
    memory: Memory | None = None


def evaluate(
    suite: Suite, arms: Sequence[EvaluatedArm], judge: Callable[[str], Model], effort: Effort | None = None
) -> list[ArmResult]:
    """Ask every arm every question and judge the answers; the first arm is the one under test.

    `judge` makes a model of a judge's name. `versus: against` judges the first arm against the second.

    Raises: UsageError: more shots than the suite has; whatever a grader raises.
    """
    driven = effort or Effort()
    asked = [with_shots(suite, arm.shots) for arm in arms]
    answers = [_ask(suite, arm, questions, driven) for arm, questions in zip(arms, asked, strict=True)]
    return [
        ArmResult(
            arm.label,
            arm.model.name,
            arm.digest,
            arm.shots,
            tuple(answers[index]),
            _judge(suite, arm, asked[index], answers, index, judge, driven),
        )
        for index, arm in enumerate(arms)
    ]


def with_shots(suite: Suite, count: int) -> list[tuple[SuiteMessage, ...]]:
    """Return the questions with the suite's first `count` examples as earlier turns.

    Raises: UsageError: the suite has fewer, or asks for bare completions.
    """
    if count == 0:
        return list(suite.questions)
    if count > len(suite.shots):
        raise UsageError(f"suite {suite.name}", f"has {len(suite.shots)} shots, not {count}", "add `shots`")
    turns: list[SuiteMessage] = []
    for item, question in zip(suite.shots[:count], suite.shot_questions[:count], strict=True):
        turns += [*(one for one in question if one.role != "system"), *_shown(suite, item)]
    return [_after_system(question, turns, suite) for question in suite.questions]


def _after_system(
    question: tuple[SuiteMessage, ...], turns: list[SuiteMessage], suite: Suite
) -> tuple[SuiteMessage, ...]:
    if suite.api == "completions":
        text = "".join(f"{one.content}{'' if one.role == 'user' else chr(10) * 2}" for one in turns)
        return (SuiteMessage(role="user", content=text + question[-1].content),)
    head = 1 if question[0].role == "system" else 0
    return (*question[:head], *turns, *question[head:])


def _shown(suite: Suite, item: SuiteItem) -> tuple[SuiteMessage, ...]:
    """Return how an example answers."""
    if item.calls:
        return (called(item.calls),)
    if not item.answers:
        raise UsageError(f"suite {suite.name}", f"shot {item.id} has no `expected`", "add it")
    return (SuiteMessage(role="assistant", content=item.answers[0]),)


def _answer(
    arm: EvaluatedArm, question: Sequence[SuiteMessage], suite: Suite, item: SuiteItem
) -> ModelAnswer:
    # A model that knows no tools is asked as ever.
    return arm.model.answer(question, suite, **({"tools": item.tools} if item.tools else {}))


def _ask(
    suite: Suite, arm: EvaluatedArm, questions: Sequence[Sequence[SuiteMessage]], effort: Effort
) -> list[ModelAnswer]:
    def ask(index: int) -> ModelAnswer:
        known = effort.memory.find(suite, arm, index) if effort.memory is not None else None
        sample = known or _answer(arm, questions[index], suite, suite.items[index])
        if effort.memory is not None and known is None:
            effort.memory.add(suite, arm, index, sample)
        effort.advance(1)
        return sample

    return _spread(ask, range(len(questions)), effort.concurrency)


def _judge(
    suite: Suite,
    arm: EvaluatedArm,
    questions: Sequence[Sequence[SuiteMessage]],
    answers: Sequence[Sequence[ModelAnswer]],
    index: int,
    judge: Callable[[str], Model],
    effort: Effort,
) -> dict[str, tuple[Grade, ...]]:
    other = (0 if index else 1) if len(answers) > 1 else None
    hearing = GraderInput(
        suite,
        suite.items,
        questions,
        answers[index],
        arm.model,
        None if other is None else answers[other],
        judge,
        lambda call, indices: _spread(call, indices, effort.concurrency),
    )
    # A comparison is made once, for the arm under test; the others' figure would be its mirror image.
    wanted = [spec for spec in suite.graders if not (_compares(spec) and index > 0)]
    return {spec.label: tuple(judge_all(spec, hearing)) for spec in wanted}


def _compares(spec: object) -> bool:
    return isinstance(spec, Judge) and spec.versus == "against"


def _spread(call: Callable[[int], _Result], indices: Sequence[int], concurrency: int) -> list[_Result]:
    with ThreadPoolExecutor(max_workers=max(1, concurrency)) as pool:
        futures = [pool.submit(call, index) for index in indices]
        try:
            return [future.result() for future in futures]
        except BaseException:
            for future in futures:
                future.cancel()
            raise
