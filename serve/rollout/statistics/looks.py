"""The evidence of one look as arrays, one place per weight, in the order in which weights were met.

Before anything is seen there is one empty place under the policy's first weight, so that plans need no
case of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from serve.rollout.policy import Policy
from serve.rollout.recording.evidence import ArmCounts, Cell, Evidence
from serve.rollout.statistics.share import FULL, Floats, null_share


@dataclass(frozen=True, slots=True)
class Counts:
    """Events among units, both arms, by weight: failures, broken forms, exceedances."""

    canary: Floats
    stable: Floats
    canary_units: Floats
    stable_units: Floats

    @property
    def canary_rate(self) -> float | None:
        """Return the canary's events per unit over all weights, None without units."""
        return ratio(self.canary.sum(), self.canary_units.sum())

    @property
    def stable_rate(self) -> float | None:
        """Return stable's events per unit over all weights, None without units."""
        return ratio(self.stable.sum(), self.stable_units.sum())


@dataclass(frozen=True, slots=True)
class PooledCells:
    """A policy and the cells that it is judged by."""

    policy: Policy
    evidence: Evidence
    cells: tuple[Cell, ...]

    @property
    def steps(self) -> int:
        """Return how many weights the policy foresees."""
        return len(self.policy.steps)

    @property
    def canary_units(self) -> int:
        """Return the canary's units over all weights."""
        return sum(cell.canary.units for cell in self.cells)

    @property
    def units(self) -> int:
        """Return the units of both compared arms over all weights."""
        return self.canary_units + sum(cell.stable.units for cell in self.cells)

    @property
    def shares(self) -> Floats:
        """Return the shares of units [weight, arm] of canary, stable and base."""
        points = [
            (cell.weight, FULL - cell.weight - cell.base_weight, cell.base_weight) for cell in self.cells
        ]
        return np.array(points, float) / FULL

    @property
    def pair_shares(self) -> Floats:
        """Return the shares [weight, arm] of canary and stable among these two."""
        pair = self.shares[:, :2]
        return np.asarray(pair / pair.sum(axis=1, keepdims=True))

    def null(self, margin: float) -> Floats:
        """Return the canary's share of events under the null hypothesis, by weight."""
        weights = [cell.weight for cell in self.cells]
        return null_share(weights, [cell.base_weight for cell in self.cells], margin)

    def stable_per_canary(self) -> float:
        """Return how many units stable gets for each one of the canary at the newest weight."""
        last = self.cells[-1]
        return max(0, FULL - last.weight - last.base_weight) / last.weight

    def counts(self, events: Callable[[ArmCounts], float], units: Callable[[ArmCounts], float]) -> Counts:
        """Return what `events` and `units` take out of each arm, by weight."""
        return Counts(
            canary=np.array([events(cell.canary) for cell in self.cells], float),
            stable=np.array([events(cell.stable) for cell in self.cells], float),
            canary_units=np.array([units(cell.canary) for cell in self.cells], float),
            stable_units=np.array([units(cell.stable) for cell in self.cells], float),
        )


def take(policy: Policy, evidence: Evidence) -> PooledCells:
    """Return the look at `evidence`; weights at which nothing is compared are left out."""
    cells = tuple(cell for cell in evidence.cells if 0 < cell.weight < FULL)
    nothing = Cell(policy.steps[0].weight, ArmCounts(), ArmCounts(), policy.observe_base)
    return PooledCells(policy, evidence, cells or (nothing,))


def ratio(part: float, whole: float) -> float | None:
    """Return part / whole, None of nothing."""
    return float(part / whole) if whole > 0 else None
