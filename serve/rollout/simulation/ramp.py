"""A policy played against made-up traffic: many rollouts at once, one look a second.

The e-values are those of `serve.rollout.statistics`, evaluated only where one could have reached its limit:
an event of stable never raises one, and what some events of the canary would make of it is known before,
so each look knows after how many events the next is due. No alarm is missed or delayed by this.
What a server does by other means than statistics is not played: the limits of health, rescue, the brake.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from registry.entries.rollouts import FULL_WEIGHT
from serve.rollout.policy import Policy
from serve.rollout.simulation.bets import Bets
from serve.rollout.simulation.lanes import Lanes
from serve.rollout.simulation.traffic import (
    Effect,
    Flags,
    Floats,
    Places,
    Second,
    TrafficModel,
    TrafficSource,
)
from serve.rollout.statistics.imbalance import log_imbalance_e
from serve.rollout.statistics.promotion import difference_limit
from serve.rollout.statistics.share import log_equivalence_e, null_share
from serve.rollout.statistics.verdicts import SUSPICIOUS_E

RUNNING, ROLLED_BACK, PROMOTED = 0, 1, 2
CERTIFY_SECONDS = 5
"""Between looks at the certificate; alarms are looked for every second."""


@dataclass(frozen=True, slots=True)
class Outcomes:
    """How each rollout ended: `state`, after how many seconds, and what the canary had got by then.

    `reason` is the place in `metrics` of the one that fired, -1 for none.
    """

    state: Places
    seconds: Floats
    canary_requests: Floats
    canary_failures: Floats
    step: Places
    reason: Places
    metrics: tuple[str, ...]


def play(
    policy: Policy,
    traffic: TrafficModel,
    effect: Effect,
    *,
    runs: int,
    minutes: float,
    seed: int,
    progress: Callable[[int], None] = lambda _: None,
) -> Outcomes:
    """Return the outcomes of `runs` rollouts of at most `minutes`; `progress` is told the runs that ended."""
    ramp = _Ramp(policy, traffic, effect, runs, np.random.default_rng(seed))
    for second in range(1, round(minutes * 60) + 1):
        if not ramp.alive.size:
            break
        before = ramp.alive.size
        ramp.look(second)
        progress(before - ramp.alive.size)
    progress(ramp.alive.size)
    return ramp.outcomes()


class _Ramp:
    """The rollouts that are alive; arrays have one place per rollout and shrink as they end."""

    def __init__(
        self, policy: Policy, traffic: TrafficModel, effect: Effect, runs: int, random: np.random.Generator
    ) -> None:
        self._policy = policy
        self._source = TrafficSource(traffic, effect, runs, random)
        self._weights = np.array([step.weight for step in policy.steps])
        self._least_units = np.array([step.min_units for step in policy.steps])
        self._least_seconds = np.array([step.min_seconds for step in policy.steps])
        self._lanes = Lanes(policy, runs)
        self._bets = Bets(policy, runs)
        self.alive = np.arange(runs)
        self._step = np.zeros(runs, np.intp)
        self._began = np.zeros(runs)
        self._entered = np.zeros((2, runs), np.int64)  # stable, canary: distinct units of the step
        self._seen = np.zeros((2, runs), np.int64)  # canary over all steps: requests, failed requests
        self._certificate = np.zeros(runs)  # log e of the steps before
        self._ended: list[tuple[Places, ...]] = []
        self._times: list[Floats] = []

    def look(self, second: int) -> None:
        """Let one second pass, then decide."""
        events = self._source.second(self.alive, self._weights[self._step] / FULL_WEIGHT, self._step)
        self._count(events)
        reason = self._lanes.alarms(self._step)
        reason = np.where(reason < 0, self._bets.alarms(self._step), reason)
        if (reason >= 0).any():
            self._end(reason >= 0, ROLLED_BACK, second, reason)
        self._move_on(second)

    def outcomes(self) -> Outcomes:
        """Return how all ended, in the order of the rollouts; who did not is still running."""
        self._end(np.ones(self.alive.size, bool), RUNNING, None, np.full(self.alive.size, -1))
        run, state, step, reason, requests, failures = (
            np.concatenate(one) for one in zip(*self._ended, strict=True)
        )
        order = np.argsort(run)
        return Outcomes(
            state=state[order],
            seconds=np.concatenate(self._times)[order],
            canary_requests=requests[order].astype(float),
            canary_failures=failures[order].astype(float),
            step=step[order],
            reason=reason[order],
            metrics=(*self._lanes.metrics, "feedback"),
        )

    def _count(self, events: Second) -> None:
        runs = self.alive.size
        entered = events.run[events.entered] + runs * events.canary[events.entered]
        self._entered += np.bincount(entered, minlength=2 * runs).reshape(2, runs)
        canary = events.run[events.canary]
        self._seen[0] += np.bincount(canary, minlength=runs)
        self._seen[1] += np.bincount(events.run[events.canary & events.failed], minlength=runs)
        self._lanes.count(events, runs)
        self._bets.score(events)

    def _move_on(self, second: int) -> None:
        ready = self._entered[1] >= self._least_units[self._step]
        ready &= second - self._began >= self._least_seconds[self._step]
        last = self._step == self._weights.size - 1
        self._advance(np.flatnonzero(ready & ~last), second)
        if second % CERTIFY_SECONDS == 0:
            candidates = np.flatnonzero(ready & last)
            if candidates.size:
                promoted = np.zeros(self.alive.size, bool)
                promoted[candidates[self._certified(candidates, second)]] = True
                self._end(promoted, PROMOTED, second, np.full(self.alive.size, -1))

    def _advance(self, runs: Places, second: int) -> None:
        """Bring those of `runs` that look calm to their next step."""
        runs = runs[self._calm(runs)]
        if not runs.size:
            return
        self._certificate[runs] += self._equivalence(runs)
        self._lanes.advance(runs, self._step)
        self._bets.advance(runs, self._step)
        self._step[runs] += 1
        self._began[runs] = second
        self._entered[:, runs] = 0

    def _calm(self, runs: Places) -> Flags:
        """Return which of `runs` have no suspicious metric and units where they should be."""
        limit = np.log(SUSPICIOUS_E)
        calm = (self._lanes.log_e(runs, self._step) < limit).all(axis=0)
        calm &= self._bets.log_e(runs, self._step) < limit
        share = self._weights[self._step[runs]] / FULL_WEIGHT
        log_e = log_imbalance_e(self._entered[:, runs].T, np.column_stack((1 - share, share)))
        tests = self._weights.size
        return np.asarray(calm & (log_e - np.log(tests) < -np.log(self._policy.imbalance_alpha)))

    def _certified(self, runs: Places, second: int) -> Flags:
        """Return which of `runs`, at the last step, may be promoted by now."""
        promotion = self._policy.promotion
        enough = self._certificate[runs] + self._equivalence(runs) >= -np.log(promotion.alpha)
        failures, units = self._lanes.failures[:, runs], self._entered[:, runs]
        limit = difference_limit((failures[1], units[1]), (failures[0], units[0]), promotion.alpha)
        total = self._lanes.units[runs]
        enough |= (total >= promotion.bound_units) & (limit <= promotion.bound)
        if promotion.no_harm_units is not None:
            waited = second - self._began[runs] >= promotion.no_harm_seconds
            enough |= waited & (total >= promotion.no_harm_units)
        calm = np.zeros(runs.size, bool)
        calm[enough] = self._calm(runs[enough])
        return calm

    def _equivalence(self, runs: Places) -> Floats:
        """Return the log e-value of the certificate in the present step."""
        null = null_share(self._weights, 0, self._policy.promotion.margin)[self._step[runs]]
        return log_equivalence_e(self._lanes.failures[1, runs], self._lanes.failures[0, runs], null)

    def _end(self, ended: Flags, state: int, second: int | None, reason: Places) -> None:
        """Write down the rollouts that ended and keep the others."""
        if not ended.any():
            return
        facts = np.full(ended.sum(), state), self._step[ended], reason[ended]
        self._ended.append((self.alive[ended], *facts, *self._seen[:, ended]))
        self._times.append(np.full(ended.sum(), np.inf if second is None else second))
        kept = ~ended
        self.alive, self._step, self._began = self.alive[kept], self._step[kept], self._began[kept]
        self._entered, self._seen = self._entered[:, kept], self._seen[:, kept]
        self._certificate = self._certificate[kept]
        self._lanes.keep(kept)
        self._bets.keep(kept)
