"""How long a run is: steps, what one step and one epoch hold, warm-up, and when something is due.

Owns these sums, which `train check` prints, `train estimate` multiplies and the run itself follows. Pure.
Invariant: an epoch has as many steps as transformers and TRL make of its rows (a test compares).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from registry.errors import UsageError
from train.config import TrainConfig
from train.settings.steps import PerEpoch


@dataclass(frozen=True, slots=True)
class Epoch:
    """One pass over the rows as they go through the model.

    `rows` are those of a batch: packed ones where a method packs. `tokens` are of all sequences. A row of
    reinforcement is a prompt that gets `answers` answers of at most `answer_tokens` tokens, and only whole
    steps of prompts are asked.
    """

    rows: int
    tokens: int
    answers: int = 1
    answer_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Duration:
    """The length of a run.

    `batch` rows make one step: `batch_size` × `accumulation` × `processes`; for reinforcement they are
    answers to `batch` / `answers` prompts. The last step of an epoch has `last_batch` rows. `left_out`
    prompts of an epoch are not asked, because they make no whole step. `tokens` leave drawn answers out,
    which may have `answer_tokens` tokens in all.
    """

    rows: int
    batch_size: int
    accumulation: int
    processes: int
    answers: int
    steps: int
    steps_per_epoch: int
    last_batch: int
    left_out: int
    warmup_steps: int
    tokens_per_epoch: int
    answer_tokens: int | None

    @property
    def batch(self) -> int:
        """Return the rows of a step."""
        return self.batch_size * self.accumulation * self.processes

    @property
    def epochs(self) -> float:
        """Return the passes over the rows."""
        return self.steps / self.steps_per_epoch

    @property
    def tokens(self) -> int:
        """Return the tokens of all steps; a part of an epoch counts by its share."""
        return round(self.tokens_per_epoch * self.epochs)


def duration_of(config: TrainConfig, epoch: Epoch, processes: int = 1) -> Duration:
    """Return how long a run of `config` over `epoch` is.

    Raises: UsageError: the prompts of a reinforcement run do not make one step.
    """
    training = config.training
    batch = training.batch_size * training.accumulation * processes
    if epoch.answer_tokens is not None:
        per_epoch, last, left_out = _whole_steps(config, epoch, batch)
    else:
        batches = math.ceil(math.ceil(epoch.rows / training.batch_size) / processes)
        per_epoch = max(1, math.ceil(batches / training.accumulation))
        last, left_out = epoch.rows - (per_epoch - 1) * batch, 0
    steps = training.steps or math.ceil(training.epochs * per_epoch)
    asked = (epoch.rows - left_out) / max(1, epoch.rows)
    return Duration(
        rows=epoch.rows,
        batch_size=training.batch_size,
        accumulation=training.accumulation,
        processes=processes,
        answers=epoch.answers,
        steps=steps,
        steps_per_epoch=per_epoch,
        last_batch=last,
        left_out=left_out,
        warmup_steps=warmup_steps(training.warmup, steps),
        tokens_per_epoch=round(epoch.tokens * asked * epoch.answers),
        answer_tokens=None if epoch.answer_tokens is None else steps * batch * epoch.answer_tokens,
    )


def warmup_steps(warmup: float, steps: int) -> int:
    """Return the steps during which the rate rises: `warmup` itself, or its share of all, rounded up."""
    return int(warmup) if warmup >= 1 else math.ceil(steps * warmup)


def is_due(every: int | PerEpoch | None, step: int, per_epoch: int, boundary: int = 1) -> bool:
    """Tell whether what happens `every` so often is due behind `step`.

    It may happen at multiples of `boundary` only; what falls between two of them happens at the later one.
    So many times per epoch are spread evenly over its steps, the last one at its end.
    """
    if every is None or step % boundary:
        return False
    if isinstance(every, PerEpoch):
        before = max(0, step - boundary)
        return step * every.per_epoch // per_epoch > before * every.per_epoch // per_epoch
    return step % (-(-every // boundary) * boundary) == 0


def evaluated_every(config: TrainConfig, steps: int) -> int | PerEpoch | None:
    """Return how often the model in training is looked at, None: at the end alone.

    What `evaluation.every` leaves open follows the checkpoints, or is a tenth of the run where a best step
    is wanted.
    """
    every = config.evaluation.every or config.checkpoints.every
    wanted = config.checkpoints.best_by is not None or config.early_stopping is not None
    return max(1, steps // 10) if every is None and wanted else every


def _whole_steps(config: TrainConfig, epoch: Epoch, batch: int) -> tuple[int, int, int]:
    """Return steps of an epoch, answers of its last step, and the prompts that are left out."""
    prompts = batch // epoch.answers
    per_epoch, left_out = divmod(epoch.rows, max(1, prompts))
    if per_epoch == 0:
        asked = f"{prompts} prompts ({batch} answers, {epoch.answers} each)"
        fact = f"a step asks {asked}; there are {epoch.rows}"
        remedy = "lower training.batch_size or accumulation, raise method.answers, or add prompts"
        raise UsageError(config.name, fact, remedy, param="training.batch_size")
    return per_epoch, batch, left_out
