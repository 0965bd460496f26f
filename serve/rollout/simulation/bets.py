"""The bets on feedback in many rollouts at once, block by block as `serve.rollout.statistics.feedback`."""

from __future__ import annotations

import numpy as np

from serve.rollout.policy import Policy
from serve.rollout.simulation.traffic import Flags, Floats, Places, Second
from serve.rollout.statistics.carrying import log_terms
from serve.rollout.statistics.feedback import stake


class Bets:
    """The open block, the gaps so far and the carried wealth of each run."""

    def __init__(self, policy: Policy, runs: int) -> None:
        metric, steps = policy.metrics.feedback, len(policy.steps)
        self._tolerance = metric.tolerance if metric else 0.0
        self._alpha = metric.alpha if metric else 0.0
        self._place = 0 if metric is None else _tests(policy)
        self._begins, self._later = log_terms(steps, steps)
        self._block = np.zeros((2, 2, runs))  # [sum, count], [stable, canary]
        self._gaps = np.zeros((3, runs))  # count, sum, sum of squares
        self._behind = np.full(runs, self._begins[0])
        self._growth = np.zeros(runs)  # of the present step
        self._touched = np.zeros(runs, bool)

    def score(self, events: Second) -> None:
        """Take in a second's scores; several of one run in the order in which they came."""
        if not self._alpha or not events.rated.size:
            return
        run, canary = events.run[events.rated], events.canary[events.rated]
        order = np.argsort(run, kind="stable")
        run, canary, scores = run[order], canary[order], events.scores[order]
        turn = np.arange(run.size) - np.searchsorted(run, run)
        for number in range(turn.max() + 1):
            now = turn == number
            self._take(run[now], canary[now], scores[now])

    def alarms(self, step: Places) -> Places:
        """Return for each run the place of the metric if its wealth proves harm, else -1."""
        found = np.full(step.size, -1)
        runs = np.flatnonzero(self._touched)
        self._touched[:] = False
        if runs.size:
            found[runs[self.log_e(runs, step) >= -np.log(self._alpha)]] = self._place
        return found

    def log_e(self, runs: Places, step: Places) -> Floats:
        """Return the carried log e-values of some runs."""
        return np.logaddexp(self._behind[runs] + self._growth[runs], self._later[step[runs]])

    def advance(self, runs: Places, step: Places) -> None:
        """Carry the wealth of `runs` over to the step after `step`."""
        behind = self._behind[runs] + self._growth[runs]
        self._behind[runs] = np.logaddexp(behind, self._begins[step[runs] + 1])
        self._growth[runs] = 0

    def keep(self, kept: Flags) -> None:
        """Forget the runs that ended."""
        self._block, self._gaps = self._block[:, :, kept], self._gaps[:, kept]
        self._behind, self._growth = self._behind[kept], self._growth[kept]
        self._touched = self._touched[kept]

    def _take(self, runs: Places, canary: Flags, scores: Floats) -> None:
        """Add one score to each of `runs`, and settle the blocks that it closes."""
        arm = canary.astype(np.intp)
        self._block[0, arm, runs] += scores
        self._block[1, arm, runs] += 1
        # A canary's score right after another's finds no stable one since: it waits in the next block.
        closes = canary & (self._block[1, 0, runs] > 0)
        self._settle(runs[closes])

    def _settle(self, runs: Places) -> None:
        sums, counts = self._block[0][:, runs], self._block[1][:, runs]
        gap = sums[0] / counts[0] - sums[1] / counts[1] - self._tolerance
        count, total, squares = self._gaps[:, runs]
        self._growth[runs] += np.log1p(stake(count, total, squares) * gap)
        self._gaps[:, runs] += np.stack((np.ones_like(gap), gap, gap**2))
        self._block[:, :, runs] = 0
        self._touched[runs] = True


def _tests(policy: Policy) -> int:
    """Return how many tests of counts come before feedback in a list of metrics."""
    wanted = policy.metrics
    return bool(wanted.errors) + 2 * bool(wanted.latency) + bool(wanted.format)
