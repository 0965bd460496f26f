"""What is seen of a run while it goes on: losses, tokens, evaluations, and whoever watches.

Owns the measurements of a run. No torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import JsonValue

if TYPE_CHECKING:
    from train.loop.conversion import ConversionResult


class RunWatcher(Protocol):
    """A person who watches a run."""

    def step(self, done: int, total: int, loss: float, tokens: int) -> None:
        """Take note: `done` of `total` steps, the step's loss, all tokens so far."""

    def evaluation(self, text: str) -> None:
        """Take note of an evaluation, in words."""

    def publishing(self) -> None:
        """Take note: the training is over, and from here on the result is kept."""


@dataclass(frozen=True, slots=True)
class OptimiserStep:
    """One optimiser step; `tokens` are all so far, `seconds` its own; `logs` is all that the trainer said."""

    number: int
    total: int
    loss: float
    tokens: int
    seconds: float
    tokens_per_second: float
    logs: Mapping[str, float]

    def line(self) -> dict[str, JsonValue]:
        """Return it as a line of `metrics.jsonl`."""
        known = {"loss", "num_tokens", "epoch"}
        rest = {key: value for key, value in self.logs.items() if key not in known}
        return {
            "step": self.number,
            "loss": self.loss,
            **{key: value if math.isfinite(value) else None for key, value in rest.items()},
            "tokens": self.tokens,
            "seconds": round(self.seconds, 4),
            "tokens_per_second": round(self.tokens_per_second, 1),
        }


@dataclass(frozen=True, slots=True)
class TrainingEvaluation:
    """One look at the model in training: the held-out loss, a suite's figures, its answers."""

    step: int
    loss: float | None
    suite: str | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    samples: tuple[tuple[str, str], ...] = ()

    def line(self) -> dict[str, JsonValue]:
        """Return it as a line of `metrics.jsonl`, without the answers."""
        line: dict[str, JsonValue] = {"step": self.step, "eval_loss": self.loss}
        return line if self.suite is None else {**line, "suite": self.suite, "scores": dict(self.scores)}

    def text(self) -> str:
        """Return it in words."""
        parts = [] if self.loss is None else [f"held-out loss {self.loss:.3f}"]
        return ", ".join([*parts, *(f"{name} {value:.3f}" for name, value in self.scores.items())])


class Observer(Protocol):
    """Something that keeps or passes on what happens: the job's record, a tracker."""

    def step(self, step: OptimiserStep) -> None:
        """Take note of a step."""

    def evaluation(self, evaluation: TrainingEvaluation) -> None:
        """Take note of an evaluation."""

    def close(self, state: str) -> None:
        """Take note of how the run ended; nothing comes after it."""


class StepCollector:
    """Only remembers the steps; watches and observes."""

    def __init__(self) -> None:
        self.steps: list[OptimiserStep] = []

    def step(self, *seen: Any) -> None:
        """Remember a step; what is told to a person is passed over."""
        self.steps += [one for one in seen if isinstance(one, OptimiserStep)]

    def evaluation(self, _seen: Any) -> None:
        """Nothing."""

    def publishing(self) -> None:
        """Nothing."""

    def close(self, state: str) -> None:
        """Nothing."""


@dataclass(frozen=True, slots=True)
class TrainingResult:
    """What a run measured; `eval_loss` is that of the step that was taken.

    `taken` is the step whose weights are the result and `why` says so in words. `warnings` are for a person.
    `peak_memory_bytes` is of the process, or of the GPU where there is one. `outcome` compares what was
    trained with what was saved.
    """

    steps: int
    seconds: float
    tokens: int
    losses: tuple[float, ...]
    eval_loss: float | None
    device: str
    evaluations: tuple[TrainingEvaluation, ...] = ()
    taken: int = 0
    why: str = "the last step"
    resumed: tuple[int, ...] = ()
    warnings: tuple[str, ...] = ()
    peak_memory_bytes: int = 0
    outcome: ConversionResult | None = None

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


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan
