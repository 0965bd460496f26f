"""Made-up traffic: requests of units, second by second, for many rollouts at once.

A request is its own unit, or one of a fixed crowd of users, few of whom send most requests (Zipf) and
whose rates of failure differ widely; that is where counting requests instead of units goes wrong.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from serve.rollout.recording.evidence import QUANTILES

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Places = NDArray[np.intp]

SPREAD = 0.8
"""Standard deviation of the logarithm of latencies, whose median is 0.4 s."""

DISPERSION = 10.0
"""Users' rates of failure follow Beta(10 p, 10 (1 − p)); for 3 % Beta(0.3, 9.7)."""


@dataclass(frozen=True, slots=True)
class TrafficModel:
    """What stable's traffic looks like; rates and shares are 0 … 1.

    `users` 0 makes each request its own unit. `malformed`: answers that break the form; `rated`: units that
    give a score, which is 1 with probability `liked`, else 0.
    """

    requests_per_minute: float = 600.0
    base_error: float = 0.01
    users: int = 0
    malformed: float = 0.002
    rated: float = 0.05
    liked: float = 0.8


@dataclass(frozen=True, slots=True)
class Effect:
    """How the canary differs: `errors` and `latency` are factors, `failing` a share that fails in addition.

    `disliked` is the drop of the mean score; all of it from step `from_step` (0: the first) on. The default
    differs in nothing.
    """

    errors: float = 1.0
    failing: float = 0.0
    latency: float = 1.0
    disliked: float = 0.0
    from_step: int = 0


@dataclass(frozen=True, slots=True)
class Second:
    """One second's requests in all rollouts; each array has one place per request.

    `run` is the rollout's place among those alive. `first_failure` and `fresh` mark what counts once per
    unit; `entered` marks units that are new in the present step. `slow` holds, per latency, which of the
    frozen quantiles [quantile, request] were exceeded.
    """

    run: Places
    canary: Flags
    failed: Flags
    first_failure: Flags
    fresh: Flags
    entered: Flags
    per_token: Flags
    first_token: Flags
    malformed: Flags
    rated: Places
    scores: Floats


class TrafficSource:
    """Draws the requests of `runs` rollouts. Seeded by the generator that it is given."""

    def __init__(self, traffic: TrafficModel, effect: Effect, runs: int, random: np.random.Generator) -> None:
        self._traffic = traffic
        self._effect = effect
        self._random = random
        self._crowd = _Crowd(traffic, runs, random) if traffic.users else None
        stable = 1 - np.array(QUANTILES)
        self._tails = np.stack((stable, ndtr(ndtri(stable) + np.log(effect.latency) / SPREAD)))

    def second(self, alive: Places, shares: Floats, steps: Places) -> Second:
        """Return one second of the rollouts `alive` whose canaries have `shares` of units at `steps`."""
        random = self._random
        count = random.poisson(self._traffic.requests_per_minute / 60 * alive.size)
        run = random.integers(0, alive.size, count)
        if self._crowd is None:
            canary = random.random(count, dtype=np.float32) < shares[run]
            worse = canary & (steps[run] >= self._effect.from_step)
            failed = self._fails(worse, self._traffic.base_error)
            everyone = np.ones(count, bool)
            return self._complete(_Units(run, canary, worse, failed, failed, everyone, everyone))
        crowd = self._crowd
        key, bucket, rate = crowd.draw(alive[run])
        canary = bucket < shares[run]
        worse = canary & (steps[run] >= self._effect.from_step)
        failed = self._fails(worse, rate)
        first, fresh, entered = (
            crowd.first_failures(key, failed),
            crowd.fresh(key),
            crowd.entered(key, steps[run]),
        )
        return self._complete(_Units(run, canary, worse, failed, first, fresh, entered))

    def _fails(self, worse: Flags, rate: Floats | float) -> Flags:
        """Return which requests fail."""
        chance = np.where(worse, rate * self._effect.errors, rate)
        if self._effect.failing:
            chance = np.where(worse, 1 - (1 - chance) * (1 - self._effect.failing), chance)
        return np.asarray(self._random.random(worse.size, dtype=np.float32) < chance)

    def _complete(self, units: _Units) -> Second:
        """Add latencies, forms and ratings; a unit's first turn has them, also where it failed."""
        random, traffic, fresh = self._random, self._traffic, units.fresh
        rated = np.flatnonzero(fresh & (random.random(fresh.size, dtype=np.float32) < traffic.rated))
        liked = traffic.liked - self._effect.disliked * units.worse[rated]
        return Second(
            run=units.run,
            canary=units.canary,
            failed=units.failed,
            first_failure=units.first_failure,
            fresh=fresh,
            entered=units.entered,
            per_token=self._slow(units),
            first_token=self._slow(units),
            malformed=fresh & (random.random(fresh.size, dtype=np.float32) < traffic.malformed),
            rated=rated,
            scores=(random.random(rated.size) < liked).astype(float),
        )

    def _slow(self, units: _Units) -> Flags:
        """Return which first turns exceed which quantile: one tail probability per turn, so they nest."""
        tail = np.where(units.fresh, self._random.random(units.run.size, dtype=np.float32), 1)
        kind = units.worse.astype(np.intp)
        return np.stack([tail < limits[kind] for limits in self._tails.T])


@dataclass(frozen=True, slots=True)
class _Units:
    """A second's requests before what they answer is drawn; `worse` marks those that the effect touches."""

    run: Places
    canary: Flags
    worse: Flags
    failed: Flags
    first_failure: Flags
    fresh: Flags
    entered: Flags


class _Crowd:
    """The users of each rollout: bucket, rate of failure, and what was counted of them already."""

    def __init__(self, traffic: TrafficModel, runs: int, random: np.random.Generator) -> None:
        shape, mean = (runs, traffic.users), traffic.base_error
        popularity = 1 / np.arange(1, traffic.users + 1)
        self._users = traffic.users
        self._random = random
        self._chosen = np.cumsum(popularity) / popularity.sum()
        self._bucket = random.random(shape, dtype=np.float32).ravel()
        rates = random.beta(DISPERSION * mean, DISPERSION * (1 - mean), shape)
        self._rate = rates.astype(np.float32).ravel()
        self._failed = np.zeros(runs * traffic.users, bool)
        self._known = np.zeros(runs * traffic.users, bool)
        self._step = np.full(runs * traffic.users, -1, np.int16)
        self._last = np.zeros(runs * traffic.users, np.int32)

    def draw(self, runs: Places) -> tuple[Places, Floats, Floats]:
        """Return for each request its user's place in all arrays, bucket and rate."""
        user = np.searchsorted(self._chosen, self._random.random(runs.size))
        key = runs * self._users + np.minimum(user, self._users - 1)
        return key, self._bucket[key], self._rate[key]

    def first_failures(self, key: Places, failed: Flags) -> Flags:
        """Return which failures are their user's first; these are remembered."""
        first: Flags = failed & ~self._failed[key] & self._alone(key, failed)
        self._failed[key[first]] = True
        return first

    def fresh(self, key: Places) -> Flags:
        """Return which requests are their user's first; these are remembered."""
        fresh: Flags = ~self._known[key] & self._alone(key, np.ones(key.size, bool))
        self._known[key[fresh]] = True
        return fresh

    def entered(self, key: Places, steps: Places) -> Flags:
        """Return which requests are their user's first in the present step; these are remembered."""
        entered: Flags = (self._step[key] != steps) & self._alone(key, np.ones(key.size, bool))
        self._step[key[entered]] = steps[entered]
        return entered

    def _alone(self, key: Places, among: Flags) -> Flags:
        """Return one of the marked requests of each user: the last one written stays."""
        places = np.flatnonzero(among)
        self._last[key[places]] = places
        kept = np.zeros(key.size, bool)
        kept[places] = self._last[key[places]] == places
        return kept
