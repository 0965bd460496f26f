"""What is seen of a run while it goes on: losses, tokens, evaluations, and whoever watches.

Owns what a step and an evaluation are. No torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from pydantic import JsonValue


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


class RunWatcher(Observer, Protocol):
    """A person who watches a run."""

    def publishing(self) -> None:
        """Take note: the training is over, and from here on the result is kept."""


class StepCollector:
    """Only remembers the steps."""

    def __init__(self) -> None:
        self.steps: list[OptimiserStep] = []

    def step(self, step: OptimiserStep) -> None:
        """Remember a step."""
        self.steps.append(step)

    def evaluation(self, _evaluation: TrainingEvaluation) -> None:
        """Nothing."""

    def close(self, state: str) -> None:
        """Nothing."""
