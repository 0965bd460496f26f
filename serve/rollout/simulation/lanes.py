"""The tests of counts in many rollouts at once: failures, latencies, forms.

A lane is one sequence of counts (a metric, or a quantile of it); a metric's e-value is the weighted mean of
its lanes' carried e-values, as in `serve.rollout.statistics.checks`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from serve.rollout.policy import Policy
from serve.rollout.simulation.traffic import Flags, Floats, Places, Second
from serve.rollout.statistics.carrying import log_terms, mix
from serve.rollout.statistics.latency import FIRST_TOKEN_WEIGHTS, PER_TOKEN_WEIGHTS
from serve.rollout.statistics.share import log_harm_e, null_share

AHEAD = 2.0
"""Standard deviations of the canary's count that an evaluation looks ahead; only speed depends on it."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One test: the place of its first lane, the weights of its lanes, and the limits it is held to."""

    name: str
    lane: int
    weights: Floats
    alpha: float
    margin: float

    @property
    def lanes(self) -> slice:
        """Return its places among all lanes."""
        return slice(self.lane, self.lane + self.weights.size)


class Lanes:
    """Counts and carried e-values; arrays are [lane, run], or [lane, arm, run] with stable first."""

    def __init__(self, policy: Policy, runs: int) -> None:
        self._metrics = _metrics(policy)
        self.metrics = tuple(metric.name for metric in self._metrics)
        lanes = sum(metric.weights.size for metric in self._metrics)
        steps = len(policy.steps)
        weights = [step.weight for step in policy.steps]
        nulls = [null_share(weights, 0, metric.margin) for metric in self._metrics]
        self._null = np.repeat(nulls, [metric.weights.size for metric in self._metrics], axis=0)
        self._cost = -np.log(self._null)
        self._begins, self._later = log_terms(steps, steps)
        self._counts = np.zeros((lanes, 2, runs), np.int64)
        self._behind = np.full((lanes, runs), self._begins[0])
        self._left = np.zeros((lanes, runs))  # events of the canary until an evaluation is due
        self.failures = np.zeros((2, runs), np.int64)  # of the step, also where errors are not tested
        self.units = np.zeros(runs, np.int64)

    def count(self, events: Second, runs: int) -> None:
        """Add a second's events."""
        place = events.run + runs * events.canary
        self.failures += _tally(place[events.first_failure], runs)
        self.units += np.bincount(events.run[events.entered & events.canary], minlength=runs)
        for metric in self._metrics:
            for lane, happened in enumerate(_events(metric.name, events), metric.lane):
                if lane < metric.lane + metric.weights.size:
                    found = _tally(place[happened], runs)
                    self._counts[lane] += found
                    self._left[lane] -= found[1]

    def alarms(self, step: Places) -> Places:
        """Return for each run the place of the metric that proves harm, -1 for none."""
        found = np.full(step.size, -1)
        for place, metric in enumerate(self._metrics):
            close = np.zeros(step.size, bool)
            for lane in range(metric.lane, metric.lane + metric.weights.size):
                due = np.flatnonzero(self._left[lane] <= 0)
                close[due[self._near(metric, lane, due, step[due])]] = True
            runs = np.flatnonzero(close)
            if runs.size:
                carried = self._carried(metric, runs, step)
                harmed = mix(carried, metric.weights) >= -np.log(metric.alpha)
                found[runs[harmed]] = place
        return found

    def log_e(self, runs: Places, step: Places) -> Floats:
        """Return the log e-values [metric, run] of some runs."""
        if not self._metrics:
            return np.zeros((1, runs.size))
        return np.stack([mix(self._carried(one, runs, step), one.weights) for one in self._metrics])

    def advance(self, runs: Places, step: Places) -> None:
        """Carry the evidence of `runs` over to the step after `step`."""
        for metric in self._metrics:
            behind = self._behind[metric.lanes, runs] + self._factors(metric, runs, step)
            self._behind[metric.lanes, runs] = np.logaddexp(behind, self._begins[step[runs] + 1])
        self._counts[:, :, runs] = 0
        self._left[:, runs] = 0
        self.failures[:, runs] = 0

    def keep(self, kept: Flags) -> None:
        """Forget the runs that ended."""
        self._counts = self._counts[:, :, kept]
        self._behind, self._left = self._behind[:, kept], self._left[:, kept]
        self.failures, self.units = self.failures[:, kept], self.units[kept]

    def _near(self, metric: Metric, lane: int, runs: Places, step: Places) -> Flags:
        """Return whose lane could reach the limit by a few events of the canary; put off the others."""
        stable, canary = self._counts[lane][:, runs]
        few = np.ceil(AHEAD * np.sqrt(canary + 1.0))
        ahead = _by_step(canary + few, stable, self._null[lane], step)
        carried = np.logaddexp(self._behind[lane, runs] + ahead, self._later[step])
        near = carried >= -np.log(metric.alpha)
        self._left[lane, runs[~near]] = few[~near]
        return np.asarray(near)

    def _factors(self, metric: Metric, runs: Places, step: Places) -> Floats:
        """Return the present step's log e-values of a metric's lanes."""
        counts = self._counts[metric.lanes][:, :, runs].astype(float)
        return _by_step(counts[:, 1], counts[:, 0], self._null[metric.lane], step[runs])

    def _carried(self, metric: Metric, runs: Places, step: Places) -> Floats:
        """Return a metric's carried log e-values by lane, and note when the next evaluation is due."""
        factors = self._factors(metric, runs, step)
        behind, later = self._behind[metric.lanes, runs], self._later[step[runs]]
        # A mean reaches the limit only when one of its lanes does.
        needed = np.log(1 / metric.alpha - np.exp(later)) - behind
        self._left[metric.lanes, runs] = (needed - factors) / self._cost[metric.lane][step[runs]]
        return np.logaddexp(behind + factors, later)


def _metrics(policy: Policy) -> list[Metric]:
    """Return the tests of counts that a policy wants."""
    wanted, found, lane = policy.metrics, [], 0
    one = np.ones(1)
    tests: list[tuple[str, Floats, float, float]] = []
    if wanted.errors:
        tests.append(("errors", one, wanted.errors.alpha, wanted.errors.margin))
    if wanted.latency:
        half, latency = wanted.latency.alpha / 2, wanted.latency
        tests.append(("per_token", PER_TOKEN_WEIGHTS, half, latency.margin))
        used = FIRST_TOKEN_WEIGHTS[FIRST_TOKEN_WEIGHTS > 0]
        tests.append(("first_token", used, half, latency.first_token_margin))
    if wanted.format:
        tests.append(("format", one, wanted.format.alpha, wanted.format.margin))
    for name, weights, alpha, margin in tests:
        found.append(Metric(name, lane, weights, alpha, margin))
        lane += weights.size
    return found


def _by_step(canary: Floats, stable: Floats, null: Floats, step: Places) -> Floats:
    """Return log e-values, runs on the last axis, each with the null share of its step.

    One call per step: the terms of the prior are then computed once and not per run.
    """
    found = np.empty(canary.shape)
    for number in np.unique(step):
        runs = step == number
        found[..., runs] = log_harm_e(canary[..., runs], stable[..., runs], null[number])
    return found


def _events(metric: str, events: Second) -> Flags:
    """Return what a metric counts, [lane, request]."""
    if metric == "errors":
        return events.first_failure[None]
    if metric == "format":
        return events.malformed[None]
    return events.per_token if metric == "per_token" else events.first_token


def _tally(place: Places, runs: int) -> Places:
    """Return how many of `place` fall on each arm and run."""
    return np.bincount(place, minlength=2 * runs).reshape(2, runs)
