"""What stops a run that goes wrong, before it costs more or is registered. Pure but for the weights' sums.

Owns the limits of divergence and of learning nothing. Invariant: a guard looks and never touches.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from registry.errors import WardrobeError
from train.model.sharding import trainable, whole
from train.settings.keeping import GuardSettings

if TYPE_CHECKING:
    from train.loop.watching import TrainingEvaluation

# How many steps are the beginning, within which no run is called diverging, and how slow the smoothing is.
# The longest batch comes first, and in a mixture it may be another task's.
_BEGINNING = 20
# What runs away must be worse than the beginning by this factor, too.
_WORSE = 1.5
_SMOOTHING = 0.9
# A loss that fell to nothing may triple without harm: the lowest counts as at least this share of the first.
_FLOOR = 0.1
# A held-out loss that is this share above its lowest, while the training loss fell, is called overfitting.
_RISE = 0.05


class Diverged(WardrobeError):
    """A run whose loss is no number any more, or runs away."""

    code = "diverged"


class NothingLearnt(WardrobeError):
    """A run without a gradient, or whose weights are those that it began with."""

    code = "no_learning_signal"


class Guards:
    """The guards of one run; `note` is told of every step in order."""

    def __init__(self, name: str, settings: GuardSettings) -> None:
        self._name = name
        self._settings = settings
        self._first = self._lowest = self._smoothed = math.nan
        self._beginning: list[float] = []
        self._idle = 0
        self._positive = True

    def note(self, step: int, loss: float, logs: Mapping[str, float]) -> None:
        """Take one step's loss and what else the trainer logged of it.

        Raises: WardrobeError: the loss is not a number, runs away, or nothing is learnt.
        """
        if not math.isfinite(loss):
            fact = f"the loss became {loss} at step {step}"
            raise Diverged(self._name, fact, "lower learning_rate; nothing was registered")
        self._check_divergence(step, loss)
        self._check_learning(step, logs)

    def _check_divergence(self, step: int, loss: float) -> None:
        # The loss of a reinforcement run is around 0 and says nothing.
        self._positive = self._positive and loss > 0
        began = len(self._beginning) == _BEGINNING
        if not self._beginning:
            self._first = self._lowest = self._smoothed = loss
        if not began:
            self._beginning.append(loss)
        self._smoothed = _SMOOTHING * self._smoothed + (1 - _SMOOTHING) * loss
        self._lowest = min(self._lowest, self._smoothed)
        limit = self._settings.divergence
        if limit is None or not self._positive or not began:
            return
        low = max(self._lowest, _FLOOR * self._first)
        if self._smoothed > max(limit * low, _WORSE * statistics.median(self._beginning)):
            fact = (
                f"the loss runs away: {self._smoothed:.3g} at step {step}, smoothed, after {self._lowest:.3g}"
            )
            remedy = "lower learning_rate or raise guards.divergence; nothing was registered"
            raise Diverged(self._name, fact, remedy)

    def _check_learning(self, step: int, logs: Mapping[str, float]) -> None:
        limit = self._settings.no_learning
        idle = logs.get("grad_norm") == 0 or logs.get("rewards/margins") == 0
        self._idle = self._idle + 1 if idle else 0
        if limit is not None and self._idle >= limit:
            what = "gradient" if logs.get("grad_norm") == 0 else "preference margin"
            fact = f"no learning signal: the {what} was exactly 0 in {self._idle} steps up to step {step}"
            remedy = "look for equal pairs or equal rewards in the data; nothing was registered"
            raise NothingLearnt(self._name, fact, remedy)


def weight_sums(model: Any) -> dict[str, tuple[float, float]]:
    """Return sum and sum of magnitudes of every trainable tensor, by name."""
    return {
        name: (float(one.double().sum()), float(one.double().abs().sum()))
        for name, one in ((name, whole(one)) for name, one in trainable(model))
    }


def check_weights(
    name: str, before: Mapping[str, tuple[float, float]], after: Mapping[str, tuple[float, float]]
) -> None:
    """Check that training left finite weights, and not the ones that it began with.

    Raises: WardrobeError.
    """
    broken = [key for key, sums in after.items() if not all(map(math.isfinite, sums))]
    if broken:
        fact = f"{len(broken)} of {len(after)} trained tensors hold NaN or infinity ({broken[0]})"
        raise Diverged(name, fact, "lower learning_rate; nothing was registered")
    if before == after:
        fact = "the training changed no weight"
        raise NothingLearnt(name, fact, "raise learning_rate or steps; nothing was registered")


def overfitting(losses: Sequence[float], evaluations: Sequence[TrainingEvaluation]) -> str | None:
    """Return a warning where the held-out loss rose while the training loss went on falling."""
    measured = [(one.step, one.loss) for one in evaluations if one.loss is not None]
    if len(measured) < 2:
        return None
    step, lowest = min(measured, key=lambda one: one[1])
    last, now = measured[-1]
    width = max(1, len(losses) // 10)
    then = losses[max(0, step - width) : step]
    end = losses[-width:]
    if now <= lowest * (1 + _RISE) or not then or sum(end) / len(end) >= sum(then) / len(then):
        return None
    return (
        f"overfitting: the held-out loss rose from {lowest:.3f} (step {step}) to {now:.3f} (step {last}) "
        "while the training loss fell; set checkpoints.best_by: eval_loss, or train less"
    )
