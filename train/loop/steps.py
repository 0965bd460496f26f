"""The steps of a run: when it is measured, when a checkpoint is written, when it ends.

Owns the decisions between two steps, and the callback by which transformers asks for them. Knows no method.
Invariants: what is decided depends on settings and step alone (but for a checkpoint that is due by time), so
a run that goes on decides alike; the order of the rows and the dropout of an epoch depend on seed and epoch
alone, not on what was before.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from pydantic import JsonValue

from registry.validation.canonical import sha256_hex
from train.config import TrainConfig
from train.epoch.duration import evaluated_every, is_due
from train.loop.attempt import Attempt
from train.loop.best import BestCheckpoint
from train.loop.evaluator import TrainingEvaluator, undisturbed
from train.loop.guards import Guards
from train.loop.rehearsal import rehearse
from train.loop.watching import OptimiserStep, TrainingEvaluation
from train.prepared import PreparedRun
from train.process.launching import any_process
from train.settings.keeping import EVAL_LOSS
from train.settings.steps import PerEpoch

_BETWEEN_SAVES = 20
"""Times that a checkpoint took lie between two that are due by time."""


@dataclass(slots=True)
class TrainingLoop:
    """One attempt at a run as it goes: its step, its measurements, and what has to happen next."""

    run: PreparedRun
    attempt: Attempt
    evaluator: TrainingEvaluator
    best: BestCheckpoint | None
    step: int = 0
    total: int = 0
    tokens: int = 0
    seconds: float = 0.0
    losses: list[float] = field(default_factory=list)
    evaluations: list[TrainingEvaluation] = field(default_factory=list)
    stopped: bool = False
    _guards: Guards | None = None
    _earlier_tokens: int = 0
    _started: float = 0.0
    _boundary: int = 1
    _looked: float = 0.0
    _saved: float = 0.0
    _save_seconds: float = 0.0
    _row_tokens: float = 0.0

    @property
    def config(self) -> TrainConfig:
        """Return the settings of the run."""
        return self.run.config

    @property
    def best_step(self) -> int | None:
        """Return the best step so far, where `checkpoints.best_by` asks for one."""
        if self.best is None or self.config.checkpoints.best_by is None or self.best.best is None:
            return None
        return self.best.best[0]

    def facts(self) -> dict[str, JsonValue]:
        """Return what a checkpoint must hold of this run beside weights and optimiser."""
        return {
            "step": self.step,
            "tokens": self.tokens,
            "seconds": self.seconds,
            "losses": list(self.losses),
            "evaluations": [
                {"step": one.step, "loss": one.loss, "suite": one.suite, "scores": dict(one.scores)}
                for one in self.evaluations
            ],
            "best_step": self.best_step,
        }

    def restore(self, facts: dict[str, Any]) -> None:
        """Take the measurements of a checkpoint."""
        self.step, self.tokens, self.seconds = facts["step"], facts["tokens"], facts["seconds"]
        self._earlier_tokens = self.tokens
        self.losses[:] = facts["losses"]
        self.evaluations[:] = [TrainingEvaluation(**one) for one in facts["evaluations"]]
        if self.best is not None:
            measured = ((one.step, self._measure(one)) for one in self.evaluations)
            self.best.restore((step, value) for step, value in measured if value is not None)

    def begin(self, trainer: Any, state: Any, loader: Any) -> None:
        """Take note of the length of the run, and rehearse its largest batch."""
        self.total = int(state.max_steps)
        self._saved = time.monotonic()
        items = self.run.items  # the mean length of a row is for trainers that count no tokens
        self._row_tokens = sum(item.length for item in items) / max(1, len(items))
        per_batch = getattr(trainer.args, "steps_per_generation", None)
        if per_batch:  # answers are drawn for several steps at once, and a run can go on between draws only
            whole = per_batch * getattr(trainer, "num_iterations", 1)
            self._boundary = max(1, whole // trainer.args.gradient_accumulation_steps)
        guards = self.config.guards
        self._guards = Guards(self.config.name, guards)
        for number, loss in enumerate(self.losses, start=1):
            self._guards.note(number, loss, {})
        if guards.longest_first and state.global_step == 0:
            rehearse(self.config.name, trainer, loader)

    def begin_step(self) -> None:
        """Take the time."""
        self._started = time.monotonic()

    def decide(self, done: int, control: Any) -> None:
        """Decide after a step, before it is logged, whether to measure, save, stop."""
        self.step = done
        at_boundary = done % self._boundary == 0
        last = done >= self.total
        control.should_evaluate = bool(self.run.held_out) and self._is_due(done)
        timely = at_boundary and any_process(self._is_time_to_save())
        if not last and (timely or self._follows(self.config.checkpoints.every, done)):
            control.should_save = True
        self._looked = time.monotonic()
        if at_boundary and not last and any_process(self.attempt.stopping()):
            self.stopped = True
            control.should_save = control.should_training_stop = True

    def log(self, logs: dict[str, float], model: Any, control: Any) -> None:
        """Take what the trainer logged of a step.

        Raises: WardrobeError: a guard stops the run.
        """
        if "loss" not in logs or self._guards is None:
            return
        seconds = time.monotonic() - self._started
        before = self.tokens
        training = self.config.training
        counted = logs.get("num_tokens")
        rows = training.batch_size * training.accumulation
        self.tokens = int(
            before + rows * self._row_tokens if counted is None else self._earlier_tokens + counted
        )
        self.seconds += seconds
        loss = float(logs["loss"])
        self.losses.append(loss)
        speed = (self.tokens - before) / seconds if seconds else 0.0
        said = {key: float(value) for key, value in logs.items() if isinstance(value, int | float)}
        step = OptimiserStep(self.step, self.total, loss, self.tokens, seconds, speed, said)
        self._guards.note(self.step, loss, said)
        for observer in self.attempt.observers:
            observer.step(step)
        if not self.run.held_out and self._is_due(self.step) and self.evaluator.has_work:
            self.measure(None, model, control)

    def measure(self, loss: float | None, model: Any, control: Any) -> None:
        """Look at the model in training, with the held-out loss that was measured just now."""
        scores, samples = self.evaluator.ask(model) if self.evaluator.has_work else ({}, ())
        suite = self.evaluator.suite.name if self.evaluator.suite is not None else None
        evaluation = TrainingEvaluation(self.step, loss, suite, scores, samples)
        self.evaluations.append(evaluation)
        for observer in self.attempt.observers:
            observer.evaluation(evaluation)
        self._looked = time.monotonic()
        value = self._measure(evaluation)
        if self.best is None or value is None:
            return
        is_best = self.best.note(self.step, value)
        if is_best and self.config.checkpoints.best_by is not None:
            control.should_save = True
        if self.best.is_over:
            control.should_training_stop = True

    def _measure(self, evaluation: TrainingEvaluation) -> float | None:
        if self.best is None:
            return None
        return evaluation.loss if self.best.metric == EVAL_LOSS else evaluation.scores.get(self.best.metric)

    def _is_due(self, step: int) -> bool:
        every = evaluated_every(self.config, self.total)
        return step >= self.total or self._follows(every, step)

    def saved(self) -> None:
        """Take note of a checkpoint, and of what it cost."""
        self._saved = time.monotonic()
        self._save_seconds = self._saved - self._looked

    def _is_time_to_save(self) -> bool:
        """Tell whether the newest checkpoint is too old; a twentieth of the time goes into them at most."""
        longest = self.attempt.save_seconds
        if longest is None:
            return False
        return time.monotonic() - self._saved >= max(longest, _BETWEEN_SAVES * self._save_seconds)

    def _follows(self, every: int | PerEpoch | None, step: int) -> bool:
        return is_due(every, step, self.run.duration.steps_per_epoch, self._boundary)


def callback(loop: TrainingLoop, trainer: Callable[[], Any]) -> Any:
    """Return the transformers callback that asks `loop`; `trainer` is called once the run begins."""
    from transformers import TrainerCallback

    class Asking(TrainerCallback):
        """Asks the loop."""

        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
            loop.begin(trainer(), state, kwargs["train_dataloader"])

        def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
            seed_epoch(loop.config.seed, int(state.epoch or 0), kwargs["train_dataloader"])

        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
            loop.begin_step()

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
            loop.decide(state.global_step, control)

        def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
            loop.log(kwargs.get("logs") or {}, kwargs.get("model"), control)

        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
            loop.saved()

        def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
            loss = kwargs["metrics"].get("eval_loss")
            loop.measure(None if loss is None else float(loss), kwargs.get("model"), control)

    return Asking()


def seed_epoch(seed: int, epoch: int, loader: Any) -> None:
    """Seed every generator for one pass over the rows, from the run's seed and the number of the pass."""
    from transformers import set_seed

    derived = int(sha256_hex(f"{seed} {epoch}".encode())[:8], 16)
    set_seed(derived)
    # NOTE: TRL's RepeatSampler draws every epoch's order from one generator that no checkpoint holds.
    batches = getattr(loader, "batch_sampler", None)
    for holder in (getattr(loader, "sampler", None), getattr(batches, "sampler", None)):
        generator = getattr(holder, "generator", None)
        if generator is not None:
            generator.manual_seed(derived)


def quiet_evaluation(trainer: Any) -> None:
    """Make the trainer's evaluation leave the random state as it was: measuring must change nothing."""
    evaluate = trainer.evaluate

    def undisturbing(*arguments: Any, **keywords: Any) -> Any:
        with undisturbed():
            return evaluate(*arguments, **keywords)

    trainer.evaluate = undisturbing
