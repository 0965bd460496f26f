"""The goal block: what must get better, by how much, and what must not get worse. Committed by hash.

Owns its form and digest. A config of a training run may carry the same block under `goal:`; the gate
judges exactly this and stores its hash, so a goal that was changed afterwards is another goal.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field

from registry.settings.file import read_settings
from registry.settings.models import Strict
from registry.validation.canonical import canonical_json, sha256_hex


class GoalGuard(Strict):
    """A suite that must not get worse by `margin` or more: as a whole, and in each slice listed.

    `metric` defaults to the suite's first grader. `slices` are tags (`kind`), or `all` for every tag that
    the suite reports; a slice that is too small to tell makes the gate "cannot tell".
    """

    suite: str
    metric: str | None = None
    margin: float = Field(default=0.05, ge=0, le=1_000)
    slices: Literal["all"] | tuple[str, ...] = ()


class Goal(Strict):
    """What a version is trained for.

    `minimum_gain` is in the metric's unit (0.02 = two points) and must be exceeded for sure over the base
    and, unless `minimum_gain_over_replaced` says otherwise, over the version it replaces. `alpha` bounds
    the probability that a version passes which should not.
    """

    suite: str
    metric: str | None = None
    direction: Literal["higher", "lower"] = "higher"
    minimum_gain: float = Field(default=0.0, ge=0)
    minimum_gain_over_replaced: float | None = Field(default=None, ge=-1_000)
    guards: tuple[GoalGuard, ...] = ()
    alpha: float = Field(default=0.05, gt=0, lt=0.5)
    seed: int = Field(default=0, ge=0, lt=2**32)

    @property
    def gain_over_replaced(self) -> float:
        """Return the gain that is asked for over the version that is replaced."""
        given = self.minimum_gain_over_replaced
        return self.minimum_gain if given is None else given

    @property
    def sha256(self) -> str:
        """Return the digest of the block with every default written out."""
        return sha256_hex(canonical_json(self.model_dump(mode="json")))


class _HoldsGoal(BaseModel):
    """A training config, of which the rest is not read here."""

    goal: Goal


def load_goal(path: Path) -> Goal:
    """Read a goal from a file that is one, or that has one under `goal:` (a training config).

    Raises: UsageError: naming the key.
    """
    file = read_settings(path, see="train/evaluation/README.md")
    return file.checked(_HoldsGoal).goal if "goal" in file.value else file.checked(Goal)
