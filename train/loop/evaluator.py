"""What the model in training says: answers to the sample prompts, and its figures on a suite.

Owns the asking. Greedy unless the suite says otherwise, one question at a time, in this process, with PEFT's
numerics. Invariant: looking changes nothing: the random state and the model's mode are as before.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from registry.errors import UsageError
from train.config import TrainConfig
from train.evaluation.formats.forms import Sampling, SuiteFile, SuiteItem, SuiteMessage
from train.evaluation.formats.library import find_suite
from train.evaluation.formats.specs import LOWER_IS_BETTER, Stops
from train.evaluation.formats.suites import Suite, build_suite
from train.evaluation.grading.grades import Model
from train.evaluation.models.offline import OfflineModel
from train.evaluation.runner import Effort, EvaluatedArm, evaluate
from train.evaluation.statistics.figures import figure
from train.loop.best import BestCheckpoint
from train.settings.keeping import EVAL_LOSS


@dataclass(frozen=True, slots=True)
class TrainingEvaluator:
    """Asks a model what a config wants to know; `suite` and `samples` may be missing."""

    tokenizer: Any
    suite: Suite | None
    samples: Suite | None
    root: Path | None = None

    @property
    def has_work(self) -> bool:
        """Tell whether there is anything to ask."""
        return self.suite is not None or self.samples is not None

    def ask(self, model: Any) -> tuple[dict[str, float], tuple[tuple[str, str], ...]]:
        """Return the suite's figures by grader, and the sample prompts with their answers."""
        with undisturbed(model):
            asked = OfflineModel.around(self.tokenizer, model, "the model in training", self.root)
            return self._scores(asked), self._answers(asked)

    def _scores(self, model: OfflineModel) -> dict[str, float]:
        if self.suite is None:
            return {}
        (arm,) = evaluate(self.suite, [EvaluatedArm("training", model)], _no_judge, Effort(concurrency=1))
        found = {
            name: figure(self.suite.grader(name), list(grades)).value for name, grades in arm.grades.items()
        }
        return {name: value for name, value in found.items() if value is not None}

    def _answers(self, model: OfflineModel) -> tuple[tuple[str, str], ...]:
        suite = self.samples
        if suite is None:
            return ()
        asked: list[tuple[SuiteMessage, ...]] = list(suite.questions)
        return tuple((question[-1].content, model.answer(question, suite).text) for question in asked)


def make_evaluator(config: TrainConfig, tokenizer: Any, root: Path | None = None) -> TrainingEvaluator:
    """Return what `config` wants to ask; `root` says how calls of tools are read.

    Raises: UsageError: a suite that is not there.
    """
    suite = find_suite(config.checkpoints.suite) if config.checkpoints.suite is not None else None
    prompts = config.evaluation.samples
    samples = None
    if prompts:
        written = SuiteFile(
            name="samples",
            items=tuple(SuiteItem(prompt=prompt) for prompt in prompts),
            sampling=Sampling(max_tokens=config.evaluation.sample_tokens),
            graders=(Stops(type="stops"),),
        )
        samples = build_suite("evaluation.samples", written, written.items)  # type: ignore[arg-type]
    return TrainingEvaluator(tokenizer, suite, samples, root)


def make_best(config: TrainConfig) -> BestCheckpoint | None:
    """Return what decides the best step or an early stop; None where neither is wanted.

    Raises: UsageError: its metric is not measured.
    """
    best_by = config.checkpoints.best_by
    if best_by is None and config.early_stopping is None:
        return None
    metric = best_by or EVAL_LOSS
    if metric == EVAL_LOSS:
        if config.data.eval is None:
            key = "checkpoints.best_by" if best_by else "early_stopping"
            fact = f"{key} goes by the held-out loss, and there is no data.eval"
            raise UsageError(config.name, fact, "name a held-out file, or a metric of a suite", param=key)
        return BestCheckpoint(stopping=config.early_stopping)
    if config.checkpoints.suite is None:
        fact = f"checkpoints.best_by {metric} is a suite's figure, and no suite is named"
        raise UsageError(
            config.name, fact, "set checkpoints.suite, or use eval_loss", param="checkpoints.suite"
        )
    spec = find_suite(config.checkpoints.suite).grader(metric)
    return BestCheckpoint(metric, spec.type not in LOWER_IS_BETTER, config.early_stopping)


@contextlib.contextmanager
def undisturbed(model: Any | None = None) -> Iterator[None]:
    """Keep the state of every random generator, and the model's mode, over the block."""
    import numpy as np
    import torch

    training = model is not None and model.training
    # The legacy generator is the one that the libraries draw from.
    states = (random.getstate(), np.random.get_state(), torch.random.get_rng_state())  # noqa: NPY002
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    if model is not None:
        model.eval()
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        torch.random.set_rng_state(states[2])
        if devices:
            torch.cuda.set_rng_state_all(devices)
        if training and model is not None:
            model.train()


def _no_judge(name: str) -> Model:
    raise UsageError(
        f"judge {name}", "is a served model, and no server is asked while training", "use another"
    )
