"""What is looked at and kept while a run goes on: checkpoints, early stop, guards, samples, trackers."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from registry.settings.models import Strict
from train.settings.steps import Every

EVAL_LOSS = "eval_loss"
"""The metric that is no suite's: the loss of the held-out rows."""


class CheckpointSettings(Strict):
    """When a checkpoint is written and which ones stay.

    `every` counts steps, or says how often in each epoch (`{per_epoch: 4}`); None: only when a signal stops
    the run. The newest `keep` stay, and the best one,
    until the run has succeeded (`keep_finished`: also then). With `best_by`, the result is the best
    checkpoint instead of the last step: by `eval_loss`, or by a metric of the goal's or the named suite
    (`accuracy`), asked of the checkpoint itself.
    """

    every: Every | None = None
    keep: int = Field(default=2, ge=1, le=1_000)
    keep_finished: bool = False
    best_by: str | None = Field(default=None, min_length=1)
    suite: str | None = None


class EarlyStopping(Strict):
    """Stop when `metric` of the held-out data has not got better for `patience` evaluations."""

    patience: int = Field(default=3, ge=1)
    minimum_improvement: float = Field(default=0.0, ge=0)


class EvaluationSettings(Strict):
    """When the held-out file is measured (None: at the end, or with each checkpoint), and what is shown.

    `every` counts steps, or says how often in each epoch (`{per_epoch: 4}`).
    `samples` are prompts whose answers are written down at each evaluation, greedy, up to
    `sample_tokens` tokens each.
    """

    every: Every | None = None
    samples: tuple[str, ...] = Field(default=(), max_length=20)
    sample_tokens: int = Field(default=64, ge=1, le=4_096)


class GuardSettings(Strict):
    """What stops a run that goes wrong.

    `divergence`: stop when the smoothed loss is this many times its lowest value, and half above that of
    the first 20 steps. `no_learning`: stop after
    so many steps in a row with no gradient at all, or with a preference margin of exactly 0 (None: never).
    `longest_first`: one pass over the longest batch before the first step, so that memory runs out at once
    or never.
    """

    divergence: float | None = Field(default=3.0, gt=1)
    no_learning: int | None = Field(default=20, ge=2)
    longest_first: bool = True


Tracker = Literal["tensorboard", "wandb", "mlflow", "prometheus"]


class TrackingSettings(Strict):
    """Where figures go beside the job's own `metrics.jsonl`.

    `prometheus` writes a text file for a collector; `project` is W&B's and MLflow's.
    """

    to: tuple[Tracker, ...] = ()
    project: str | None = None

    @model_validator(mode="after")
    def _once_each(self) -> TrackingSettings:
        if len(set(self.to)) != len(self.to):
            raise ValueError("to names a tracker twice")
        return self
