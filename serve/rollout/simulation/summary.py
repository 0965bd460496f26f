"""Figures of many simulated rollouts: shares with exact limits, and how much it took to find harm."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import betaincinv

from serve.rollout.policy import Policy, PolicyMetrics, RampStep
from serve.rollout.simulation.ramp import PROMOTED, ROLLED_BACK, Outcomes
from serve.rollout.simulation.traffic import Floats

CONFIDENCE = 0.95
ENDLESS = 10**9


@dataclass(frozen=True, slots=True)
class ShareOfRuns:
    """A share of `runs` with its upper limit (one-sided, exact: Clopper-Pearson)."""

    count: int
    runs: int

    @property
    def value(self) -> float:
        """Return the point estimate."""
        return self.count / self.runs

    @property
    def upper(self) -> float:
        """Return the upper 95 % limit."""
        if self.count == self.runs:
            return 1.0
        return float(betaincinv(self.count + 1, self.runs - self.count, CONFIDENCE))

    @property
    def lower(self) -> float:
        """Return the lower 95 % limit."""
        return (
            float(betaincinv(self.count, self.runs - self.count + 1, 1 - CONFIDENCE)) if self.count else 0.0
        )


@dataclass(frozen=True, slots=True)
class SimulationSummary:
    """What the runs came to; medians count a run that was never rolled back as endless (None).

    `requests` and `seconds` are (median, 90 %) of the canary's requests and of the time until the
    rollback, `failed` the median number of failed canary requests in the runs that were rolled back.
    """

    rolled_back: ShareOfRuns
    promoted: ShareOfRuns
    requests: tuple[float | None, float | None]
    seconds: tuple[float | None, float | None]
    failed: float | None
    promoted_seconds: float | None
    reasons: dict[str, int]


def summarize(outcomes: Outcomes) -> SimulationSummary:
    """Return the figures of all runs."""
    fired, promoted = outcomes.state == ROLLED_BACK, outcomes.state == PROMOTED
    return SimulationSummary(
        rolled_back=ShareOfRuns(int(fired.sum()), fired.size),
        promoted=ShareOfRuns(int(promoted.sum()), fired.size),
        requests=spread(outcomes.canary_requests, fired),
        seconds=spread(outcomes.seconds, fired),
        failed=float(np.median(outcomes.canary_failures[fired])) if fired.any() else None,
        promoted_seconds=float(np.median(outcomes.seconds[promoted])) if promoted.any() else None,
        reasons={
            metric: int((outcomes.reason[fired] == place).sum())
            for place, metric in enumerate(outcomes.metrics)
        },
    )


def spread(values: Floats, fired: np.ndarray) -> tuple[float | None, float | None]:
    """Return the median and the 90 % quantile of all runs, those that never fired being endless."""
    ordered = np.sort(np.where(fired, values, np.inf))
    found = (ordered[int(share * (ordered.size - 1))] for share in (0.5, 0.9))
    first, second = (float(one) if np.isfinite(one) else None for one in found)
    return first, second


def at_weight(policy: Policy, weight: int) -> Policy:
    """Return `policy` at one weight (basis points) for ever: no ramp, no promotion."""
    step = RampStep(weight=weight, min_units=ENDLESS, min_seconds=0)
    return policy.model_copy(update={"steps": (step,)})


def only(**metrics: object) -> PolicyMetrics:
    """Return metrics with these alone."""
    nothing = dict.fromkeys(PolicyMetrics.model_fields)
    return PolicyMetrics.model_validate({**nothing, **metrics})
