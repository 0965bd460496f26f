"""What `train check` says about the length of a run: the document, and its words for a person."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Self

from registry.api.documents import Document
from train.config import TrainConfig
from train.epoch.duration import Duration, evaluated_every, is_due


class LengthReport(Document):
    """How long a run is.

    `batch` rows make a step: `batch_size` × `accumulation` × `processes`; of a reinforcement run they are
    answers, `answers` to each prompt. `last_batch` is what the last step of an epoch has, a step like any
    other. `left_out` prompts of an epoch make no whole step. `tokens` are of all steps, drawn answers left
    out; these may have `answer_tokens` in all. `checkpoints` and `evaluations` are counted for a run that
    nothing ends early; the last step writes no checkpoint.
    """

    steps: int
    epochs: float
    steps_per_epoch: int
    rows: int
    batch: int
    batch_size: int
    accumulation: int
    processes: int
    last_batch: int
    answers: int | None
    left_out: int
    warmup_steps: int
    tokens_per_epoch: int
    tokens: int
    answer_tokens: int | None
    checkpoints: int
    evaluations: int

    @classmethod
    def of(cls, duration: Duration, config: TrainConfig) -> Self:
        """Describe the length of a run of `config`."""
        online = duration.answer_tokens is not None
        every = evaluated_every(config, duration.steps)
        inner = range(1, duration.steps)
        saved = [one for one in inner if is_due(config.checkpoints.every, one, duration.steps_per_epoch)]
        looked = [one for one in inner if is_due(every, one, duration.steps_per_epoch)]
        return cls(
            steps=duration.steps,
            epochs=round(duration.epochs, 4),
            steps_per_epoch=duration.steps_per_epoch,
            rows=duration.rows,
            batch=duration.batch,
            batch_size=duration.batch_size,
            accumulation=duration.accumulation,
            processes=duration.processes,
            last_batch=duration.last_batch,
            answers=duration.answers if online else None,
            left_out=duration.left_out,
            warmup_steps=duration.warmup_steps,
            tokens_per_epoch=duration.tokens_per_epoch,
            tokens=duration.tokens,
            answer_tokens=duration.answer_tokens,
            checkpoints=len(saved),
            evaluations=len(looked) + 1,
        )

    def facts(self) -> Iterator[tuple[str, str]]:
        """Yield names and values for a person."""
        epochs = f"{self.epochs:g} epoch{'' if self.epochs == 1 else 's'}"
        yield "steps", f"{self.steps} ({epochs} of {_steps(self.steps_per_epoch)})"
        yield "batch", self._batch()
        yield "tokens", self._tokens()
        yield "warm-up", _steps(self.warmup_steps)
        yield "on the way", f"{self.checkpoints} checkpoints, {self.evaluations} evaluations"

    def warnings(self) -> Iterator[str]:
        """Yield what a person should know before the run starts."""
        if self.warmup_steps >= self.steps:
            yield (
                f"the warm-up of {_steps(self.warmup_steps)} is not over when the run ends ({self.steps}): "
                "the rate never reaches training.learning_rate"
            )

    def _batch(self) -> str:
        parts = [f"batch_size {self.batch_size}"]
        parts += [f"accumulation {self.accumulation}"] if self.accumulation > 1 else []
        parts += [f"{self.processes} processes"] if self.processes > 1 else []
        product = " × ".join(parts)
        if self.answers is not None:
            told = f"{self.batch} answers a step ({product}), {self.answers} to each prompt"
            more = f"; {self.left_out} prompts of an epoch make no whole step and are left out"
            return told + (more if self.left_out else "")
        told = f"{self.batch} rows a step ({product})"
        if self.last_batch == self.batch:
            return told
        last = f"{self.last_batch} row{'' if self.last_batch == 1 else 's'}"
        if self.steps_per_epoch == 1:
            return f"{told}; an epoch has {last}, which are one step"
        return f"{told}; the last step of an epoch has {last} and moves the weights like any other"

    def _tokens(self) -> str:
        told = f"{self.tokens_per_epoch} an epoch, {self.tokens} in all"
        if self.answer_tokens is None:
            return told
        return f"{told} (prompts, once for each answer), and answers of {self.answer_tokens} at most"


def _steps(count: int) -> str:
    return f"{count} step{'' if count == 1 else 's'}"
