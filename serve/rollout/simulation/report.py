"""A simulation as one document: what was asked, our policy's row and other tools'."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from pydantic import BaseModel, ConfigDict

from serve.rollout.presets import load_policy
from serve.rollout.simulation import incumbents
from serve.rollout.simulation.ramp import PROMOTED, ROLLED_BACK, play
from serve.rollout.simulation.summary import ShareOfRuns, at_weight, spread
from serve.rollout.simulation.traffic import Effect, Flags, Floats, TrafficModel

COLUMNS = (
    "rule",
    "rolled back#",
    "≤ (95 %)#",
    "canary requests#",
    "90 % within#",
    "minutes#",
    "failed requests#",
)
CURVE_POINTS = 101
COMPARED_WEIGHT = 1_000
"""Basis points at which other tools' rules are played when a whole ramp is asked for."""


class RuleDocument(BaseModel):
    """One rule over all runs; `upper` is the 95 % limit (one-sided, Clopper-Pearson) of `share`.

    Medians and 90 % quantiles are over all runs, None where so many were never rolled back. `curve` is the
    share rolled back after 0, 1 … 100 hundredths of the simulated time.
    """

    rule: str
    rolled_back: int
    share: float
    upper: float
    canary_requests: float | None
    canary_requests_90: float | None
    minutes: float | None
    failed_requests: float | None
    promoted: float | None = None
    promoted_minutes: float | None = None
    reasons: dict[str, int] = {}
    curve: list[float] = []


class SimulationOptions(BaseModel):
    """What to play; names as in `TrafficModel`, `Effect` and `play`; `weight` None is the ramp."""

    model_config = ConfigDict(extra="forbid")

    policy: str = "default"
    requests_per_minute: float = 600
    base_error: float = 0.01
    errors: float = 1
    failing: float = 0
    latency: float = 1
    feedback_drop: float = 0
    from_step: int = 0
    rated: float = 0.05
    sticky: int | None = None
    weight: int | None = None
    minutes: int = 60
    runs: int = 1_000
    seed: int = 0

    @property
    def traffic(self) -> TrafficModel:
        """Return stable's traffic."""
        return TrafficModel(
            self.requests_per_minute, self.base_error, users=self.sticky or 0, rated=self.rated
        )

    @property
    def effect(self) -> Effect:
        """Return how the canary differs."""
        return Effect(self.errors, self.failing, self.latency, self.feedback_drop, self.from_step)

    @property
    def identical(self) -> bool:
        """Return whether the canary differs in nothing, so that every rollback is a false one."""
        return self.effect == Effect(from_step=self.from_step)


class SimulationDocument(BaseModel):
    """A simulation: what was played, and every rule's row (ours first)."""

    wanted: SimulationOptions
    rules: list[RuleDocument]


def simulated(wanted: SimulationOptions, progress: Callable[[int], None]) -> SimulationDocument:
    """Return the played simulation; `progress` is told the runs that ended.

    Raises: UsageError: of the policy.
    """
    return SimulationDocument(wanted=wanted, rules=[_ours(wanted, progress), *_others(wanted)])


def _ours(wanted: SimulationOptions, progress: Callable[[int], None]) -> RuleDocument:
    """Return the row of the policy."""
    policy = load_policy(wanted.policy)
    played = at_weight(policy, wanted.weight) if wanted.weight else policy
    how = f"at {wanted.weight / 100:g} %" if wanted.weight else "whole ramp"
    found = play(
        played,
        wanted.traffic,
        wanted.effect,
        runs=wanted.runs,
        minutes=wanted.minutes,
        seed=wanted.seed,
        progress=progress,
    )
    fired, promoted = found.state == ROLLED_BACK, found.state == PROMOTED
    times = found.seconds / 60
    row = _row(
        f"Wardrobe, {policy.name}, {how}", fired, found.canary_requests, times, found.canary_failures, wanted
    )
    row.promoted = float(promoted.mean())
    if promoted.any():
        row.promoted_minutes = float(np.median(times[promoted]))
    counts = {metric: int((found.reason[fired] == place).sum()) for place, metric in enumerate(found.metrics)}
    row.reasons = {metric: count for metric, count in counts.items() if count}
    return row


def _others(wanted: SimulationOptions) -> Iterator[RuleDocument]:
    """Yield the rows of other tools at one weight; they look at errors alone."""
    weight = wanted.weight or COMPARED_WEIGHT
    drawn = incumbents.draw(
        wanted.traffic, wanted.effect, weight, runs=wanted.runs, minutes=wanted.minutes, seed=wanted.seed
    )
    for name, rule in incumbents.rules().items():
        found = incumbents.decide(rule, drawn, wanted.base_error)
        yield _row(name, found.fired, found.canary_requests, found.minutes, found.canary_failures, wanted)


def cells(row: RuleDocument) -> list[str]:
    """Return a row's cells of `COLUMNS`."""
    numbers = (row.canary_requests, row.canary_requests_90, row.minutes, row.failed_requests)
    shown = ["–" if one is None else f"{one:,.0f}" if one >= 10 else f"{one:.2g}" for one in numbers]
    return [row.rule, f"{row.share:.2%}", f"{row.upper:.2%}", *shown]


def _row(
    name: str, fired: Flags, requests: Floats, took: Floats, failed: Floats, wanted: SimulationOptions
) -> RuleDocument:
    share = ShareOfRuns(int(fired.sum()), fired.size)
    middle, most = spread(requests, fired)
    times = np.linspace(0, wanted.minutes, CURVE_POINTS)
    return RuleDocument(
        rule=name,
        rolled_back=share.count,
        share=share.value,
        upper=share.upper,
        canary_requests=middle,
        canary_requests_90=most,
        minutes=spread(took, fired)[0],
        failed_requests=float(np.median(failed[fired])) if fired.any() else None,
        curve=_curve(took[fired], times, fired.size),
    )


def _curve(took: Floats, times: Floats, runs: int) -> list[float]:
    return [round(float(one), 4) for one in np.searchsorted(np.sort(took), times, side="right") / runs]
