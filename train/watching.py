"""What is seen of a run while it goes on: losses, tokens, whoever watches.

Owns the measurements of a run and the callback that collects them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol


class Progress(Protocol):
    """Whoever watches a run."""

    def step(self, done: int, total: int, loss: float, tokens: int) -> None:
        """Take note: `done` of `total` steps, the step's loss, all tokens so far."""

    def publishing(self) -> None:
        """Take note: the training is over, and from here on the result is kept."""


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """What a run measured: losses per step, the final loss on the held-out file, seconds, tokens."""

    steps: int
    seconds: float
    tokens: int
    losses: tuple[float, ...]
    eval_loss: float | None
    device: str

    @property
    def tokens_per_second(self) -> float:
        """Return the training speed; prompt tokens count, padding does not."""
        return self.tokens / self.seconds if self.seconds else 0.0

    @property
    def first_loss(self) -> float:
        """Return the mean loss over the first tenth of the steps."""
        return _mean(self.losses[: max(1, len(self.losses) // 10)])

    @property
    def last_loss(self) -> float:
        """Return the mean loss over the last tenth of the steps."""
        return _mean(self.losses[-max(1, len(self.losses) // 10) :])


@dataclass(slots=True)
class Watch:
    """Collects what the trainer logs, and passes it on."""

    progress: Progress
    losses: list[float] = field(default_factory=list)
    tokens: int = 0

    def note(self, logs: dict[str, float], done: int, total: int) -> None:
        """Take a log of the trainer: a step's, or another one that is passed over."""
        if "loss" not in logs:
            return
        self.losses.append(float(logs["loss"]))
        self.tokens = int(logs.get("num_tokens", self.tokens))
        self.progress.step(done, total, self.losses[-1], self.tokens)


def callback(watch: Watch) -> Any:
    """Return the transformers callback that hands every log to `watch`."""
    from transformers import TrainerCallback

    class Watcher(TrainerCallback):
        """Hands every log to the watch."""

        def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
            watch.note(kwargs.get("logs") or {}, state.global_step, state.max_steps)

    return Watcher()


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan
