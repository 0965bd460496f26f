"""Which evaluation was the best one so far, and whether it is time to stop. Pure.

Owns `checkpoints.best_by` and `early_stopping`. Invariant: a tie is won by the earlier step.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from train.settings.keeping import EVAL_LOSS, EarlyStopping


@dataclass(slots=True)
class BestCheckpoint:
    """The evaluations of one run by one metric."""

    metric: str = EVAL_LOSS
    higher_is_better: bool = False
    stopping: EarlyStopping | None = None
    seen: list[tuple[int, float]] = field(default_factory=list)

    def note(self, step: int, value: float) -> bool:
        """Take an evaluation; return whether it is the best so far."""
        best = self.best
        self.seen.append((step, value))
        return best is None or self._gain(value, best[1]) > 0

    def restore(self, seen: Iterable[tuple[int, float]]) -> None:
        """Take the evaluations of an interrupted run."""
        self.seen[:] = seen

    @property
    def best(self) -> tuple[int, float] | None:
        """Return step and value of the best evaluation."""
        found: tuple[int, float] | None = None
        for step, value in self.seen:
            if value == value and (found is None or self._gain(value, found[1]) > 0):  # noqa: PLR0124  NaN
                found = (step, value)
        return found

    @property
    def is_over(self) -> bool:
        """Tell whether the last `patience` evaluations brought no improvement."""
        if self.stopping is None:
            return False
        best: float | None = None
        without = 0
        for _, value in self.seen:
            if best is None or self._gain(value, best) > self.stopping.minimum_improvement:
                best, without = value, 0
            else:
                without += 1
        return without >= self.stopping.patience

    def _gain(self, value: float, other: float) -> float:
        return value - other if self.higher_is_better else other - value
