"""What judges the answers of a reinforcement run: graders of evaluation, and a reward model.

Owns the way from an answer to a number. The graders are the very ones that the gate uses. Invariant: a
grader that cannot judge within a run (it needs a second model, or judges no answer) is refused beforehand.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, NoReturn

from registry.errors import UsageError
from train.dataset.containers.place import Where
from train.dataset.records import ToolCall
from train.epoch.rows import row_error
from train.evaluation.formats.forms import ExpectedCall, SuiteFile, SuiteItem, SuiteMessage
from train.evaluation.formats.specs import Python, Spec
from train.evaluation.formats.suites import NEEDS_EXPECTED, Suite, build_suite
from train.evaluation.grading.graders import judge_all
from train.evaluation.grading.grades import Grade, GraderInput, ModelAnswer, Tools
from train.evaluation.models.listening import Heard
from train.methods.rewarded.prompts import OnlinePrompt

_WITHOUT = {
    "judge": "asks a served model",
    "perplexity": "judges the expected answer, not the one that was given",
    "agreement": "judges pairs of items",
    "bleu": "is a figure of a whole corpus; rouge_l judges one answer",
    "chrf": "is a figure of a whole corpus; rouge_l judges one answer",
}

Hear = Callable[[Sequence[int], Tools], Heard]
"""Reads the ids of an answer that may call tools."""

Rewarder = Callable[..., list[float | None]]
"""TRL's reward function: keywords in (`item`, `completions`, …), one number per answer out."""


def check_graders(name: str, graders: Sequence[Spec]) -> None:
    """Check that every grader can judge an answer on its own.

    Raises: UsageError: naming the grader.
    """
    labels = [spec.label for spec in graders]
    for spec in graders:
        subject = f"{name} grader {spec.label}"
        if why := _WITHOUT.get(spec.type):
            remedy = "use another grader; evaluation can still use this one"
            raise UsageError(subject, f"{why}, so it cannot reward", remedy, param="method.reward")
        if isinstance(spec, Python) and spec.source is None:
            raise UsageError(subject, "has no `source`", "give the code as `source`", param="method.reward")
        if labels.count(spec.label) > 1:
            fact = "is there twice, and figures are told apart by name"
            raise UsageError(subject, fact, "give one a `name`", param="method.reward")


def check_prompts(path: Where, prompts: Sequence[OnlinePrompt], graders: Sequence[Spec]) -> None:
    """Check that every row has what the graders need: an expected answer, a known label.

    Raises: UsageError: naming the row.
    """
    for spec in graders:
        for prompt in prompts if spec.type in NEEDS_EXPECTED else ():
            if not prompt.expected:
                fact = f"gives no answer, which grader {spec.label} needs"
                raise row_error(path, prompt.row, fact, "end the row with the right answer")
    if graders:
        _suite(str(path), {prompt.row: prompt for prompt in prompts}, graders)


def grading_rewards(
    prompts: Sequence[OnlinePrompt], graders: Sequence[Spec], hear: Hear | None = None
) -> list[Rewarder]:
    """Return a reward function per grader; their `item` is the index of the prompt in `prompts`.

    `hear` reads the calls in answers to prompts with tools.
    """
    if not graders:
        return []
    suite = _suite("reward", dict(enumerate(prompts)), graders)
    return [_rewarder(spec, suite, hear) for spec in graders]


def model_reward(scores: Callable[[Sequence[Sequence[int]]], list[float]]) -> Rewarder:
    """Return the reward function of a reward model that scores rows of token ids."""

    def reward_model(**given: Any) -> list[float | None]:
        rows = [
            [*prompt, *answer]
            for prompt, answer in zip(given["prompt_ids"], given["completion_ids"], strict=True)
        ]
        return list(scores(rows))

    return reward_model


def _rewarder(spec: Spec, suite: Suite, hear: Hear | None) -> Rewarder:
    def reward(**given: Any) -> list[float | None]:
        items = [suite.items[index] for index in given["item"]]
        samples = [
            _heard(hear, item, ModelAnswer(text, "stop" if stopped else "length", 0, len(ids)), ids)
            for item, text, ids, stopped in zip(
                items, given["completions"], given["completion_ids"], given["stopped"], strict=True
            )
        ]
        return [grade.score for grade in judge_all(spec, _hearing(suite, items, samples))]

    reward.__name__ = spec.label
    return reward


def _heard(hear: Hear | None, item: SuiteItem, said: ModelAnswer, ids: Sequence[int]) -> ModelAnswer:
    """Return the answer with its calls apart from its text, as the server would return it."""
    if hear is None or not item.tools:
        return said
    heard = hear(ids, item.tools)
    return replace(said, text=heard.text, calls=heard.calls)


def _hearing(suite: Suite, items: Sequence[SuiteItem], samples: Sequence[ModelAnswer]) -> GraderInput:
    questions = [(SuiteMessage(role="user", content=item.prompt or ""),) for item in items]
    return GraderInput(suite, items, questions, samples, _Nobody(), None, _no_judge, _spread)


def _suite(subject: str, prompts: Mapping[int, OnlinePrompt], graders: Sequence[Spec]) -> Suite:
    written = SuiteFile(name="reward", items=(), graders=tuple(graders))
    return build_suite(subject, written, [_item(number, prompt) for number, prompt in prompts.items()])


def _item(number: int, prompt: OnlinePrompt) -> SuiteItem:
    return SuiteItem(
        id=str(number),
        prompt=prompt.question,
        expected=prompt.expected or None,
        data=dict(prompt.data),
        tools=tuple(dict(tool) for tool in prompt.tools),
        calls=None if prompt.calls is None else tuple(_call(call) for call in prompt.calls),
    )


def _call(call: ToolCall) -> ExpectedCall:
    return ExpectedCall(name=call.name, arguments=json.loads(call.arguments))


def _spread(call: Callable[[int], Grade], indices: Sequence[int]) -> list[Grade]:
    # Graders that run programs wait for children; the order of the results is that of the answers.
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        return list(pool.map(call, indices))


class _Nobody:
    """Stands where a served model stands in an evaluation; no grader that asks it is let in."""

    name = "the model in training"

    def answer(self, messages: Sequence[SuiteMessage], suite: Suite, tools: Tools = ()) -> ModelAnswer:
        """Refuse."""
        del tools
        _no_judge(f"{self.name} about {len(messages)} messages of {suite.name}")

    def log_probability(
        self, messages: Sequence[SuiteMessage], expected: str, suite: Suite
    ) -> tuple[float, int]:
        """Refuse."""
        del expected
        _no_judge(f"{self.name} about {len(messages)} messages of {suite.name}")


def _no_judge(name: str) -> NoReturn:
    raise UsageError("reward", f"cannot ask {name}", "use graders that judge an answer on its own")
