"""How other tools decide, by their own rules and defaults, on the same made-up traffic at one weight.

Each rule sees counts per minute and arm, as a metrics server would give them, and says after which minute
it rolls back. Rules and defaults are those of the tools' sources and documentation
(`statistics/derivations.md` 11); `p0` is stable's known error rate, for the rows that were tuned to it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from registry.entries.rollouts import FULL_WEIGHT
from serve.rollout.simulation.traffic import Effect, Flags, Floats, TrafficModel

ARGO_MINUTES = 5
KAYENTA_MINUTES = 10
KAYENTA_BATCH = 250
KAYENTA_CONFIDENCE = 0.98
KAYENTA_EFFECT = 0.25
KAYENTA_NOISE = 1e-5
GROWTHBOOK_TUNED = 5_000.0
GROWTHBOOK_LEAST = 50
NAIVE_ALPHA = 0.05


@dataclass(frozen=True, slots=True)
class Minutes:
    """Counts [run, minute] of both arms; `control` is stable's traffic cut down to the canary's share."""

    canary: Floats
    canary_failed: Floats
    stable: Floats
    stable_failed: Floats
    control: Floats
    control_failed: Floats
    random: np.random.Generator


Rule = Callable[[Minutes, float], Flags]
"""Returns [run, minute]: True from the minute on after which it rolls back; takes p0."""


def draw(
    traffic: TrafficModel, effect: Effect, weight: int, *, runs: int, minutes: int, seed: int
) -> Minutes:
    """Return the minutes of `runs` rollouts at `weight` basis points."""
    random = np.random.default_rng(seed)
    share, shape, p0 = weight / FULL_WEIGHT, (runs, minutes), traffic.base_error
    worse = 1 - (1 - min(1.0, p0 * effect.errors)) * (1 - effect.failing)
    canary = random.poisson(traffic.requests_per_minute * share, shape)
    stable = random.poisson(traffic.requests_per_minute * (1 - share), shape)
    stable_failed = random.binomial(stable, p0)
    control = random.binomial(stable, min(1.0, share / (1 - share)))
    return Minutes(
        canary=canary.astype(float),
        canary_failed=random.binomial(canary, worse).astype(float),
        stable=stable.astype(float),
        stable_failed=stable_failed.astype(float),
        control=control.astype(float),
        control_failed=random.hypergeometric(stable_failed, stable - stable_failed, control).astype(float),
        random=random,
    )


def argo(least_success: float | None, limit: int) -> Rule:
    """Return Argo Rollouts: success rate over 5 minutes, abort when more than `limit` measurements failed.

    `least_success` None: 1 − 2 p0. A measurement without traffic is NaN and fails.
    """

    def rule(minutes: Minutes, p0: float) -> Flags:
        least = 1 - 2 * p0 if least_success is None else least_success
        looks = minutes.canary.shape[1] // ARGO_MINUTES
        total, failed = (
            one[:, : looks * ARGO_MINUTES].reshape(len(one), looks, ARGO_MINUTES).sum(axis=2)
            for one in (minutes.canary, minutes.canary_failed)
        )
        bad = ~(_success(total, failed) >= least)
        aborted = np.repeat(np.cumsum(bad, axis=1) > limit, ARGO_MINUTES, axis=1)
        return _later(aborted, ARGO_MINUTES - 1, minutes.canary.shape[1])

    return rule


def flagger(least_success: float | None, threshold: int) -> Rule:
    """Return Flagger: success rate each minute; `threshold` failed checks in all roll back at the next."""

    def rule(minutes: Minutes, p0: float) -> Flags:
        least = 1 - 2 * p0 if least_success is None else least_success
        bad = ~(_success(minutes.canary, minutes.canary_failed) >= least)
        return _later(np.cumsum(bad, axis=1) >= threshold, 1, bad.shape[1])

    return rule


def naive(minutes: Minutes, p0: float) -> Flags:
    """Return whether a one-sided z-test of all counts has ever shown p < 0.05, looking each minute."""
    del p0
    canary, canary_failed, stable, stable_failed = _sums(minutes)
    with np.errstate(divide="ignore", invalid="ignore"):
        pooled = (canary_failed + stable_failed) / (canary + stable)
        error = np.sqrt(pooled * (1 - pooled) * (1 / canary + 1 / stable))
        z = (canary_failed / canary - stable_failed / stable) / error
    return _ever(z > ndtri(1 - NAIVE_ALPHA))


def growthbook(minutes: Minutes, p0: float) -> Flags:
    """Return whether GrowthBook's asymptotic confidence sequence has ever excluded no harm (n_c ≥ 50)."""
    del p0
    alpha = 0.05
    canary, canary_failed, stable, stable_failed = _sums(minutes)
    log = -2 * np.log(2 * alpha)
    rho = np.sqrt((log + np.log1p(log)) / GROWTHBOOK_TUNED)
    with np.errstate(divide="ignore", invalid="ignore"):
        ours, theirs = canary_failed / canary, stable_failed / stable
        total = canary + stable
        variance = total * (ours * (1 - ours) / canary + theirs * (1 - theirs) / stable)
        grown = total * rho**2 + 1
        half = np.sqrt(variance * 2 * grown / (total * rho) ** 2 * np.log1p(np.sqrt(grown) / (2 * alpha)))
    return _ever((ours - theirs - half > 0) & (canary >= GROWTHBOOK_LEAST))


def kayenta(minutes: Minutes, p0: float) -> Flags:
    """Return Kayenta's judge each 10 minutes, failing fast: Mann-Whitney of error rates per minute.

    The baseline is as large as the canary. High: the 98 % interval of the shift lies above a quarter of its
    Hodges-Lehmann estimate, and the ratio of means is at least 1; NaN (a mean of 0) is ignored.
    """
    del p0
    runs, length = minutes.canary.shape
    ours, theirs = (
        _rate(failed, total) + minutes.random.normal(0, KAYENTA_NOISE, failed.shape)
        for failed, total in (
            (minutes.canary_failed, minutes.canary),
            (minutes.control_failed, minutes.control),
        )
    )
    failed = np.zeros((runs, length), bool)
    for end in range(KAYENTA_MINUTES, length + 1, KAYENTA_MINUTES):
        means = [one[:, :end].sum(axis=1) for one in (minutes.canary_failed, minutes.control_failed)]
        compared = (means[0] > 0) & (means[1] > 0) & (_ratio(ours, theirs, end) >= 1)
        for begin in range(0, runs, KAYENTA_BATCH):
            part = slice(begin, begin + KAYENTA_BATCH)
            failed[part, end - 1] = compared[part] & _high(ours[part, :end], theirs[part, :end])
    return _ever(failed)


def rules() -> dict[str, Rule]:
    """Return all rules by the names that tables call them."""
    return {
        "Argo, docs (≥ 95 %, 5 min, limit 3)": argo(0.95, 3),
        "Argo, tuned (≥ 1 − 2 p0, limit 3)": argo(None, 3),
        "Argo, tuned, limit 0 (default)": argo(None, 0),
        "Flagger, docs (≥ 99 %, threshold 10)": flagger(0.99, 10),
        "Flagger, tutorial (≥ 99 %, threshold 5)": flagger(0.99, 5),
        "Flagger, tuned (≥ 1 − 2 p0, threshold 5)": flagger(None, 5),
        "Kayenta, 10-minute looks, fail fast": kayenta,
        "naive z-test, p < 0.05 each minute": naive,
        "GrowthBook, asymptotic sequence (n ≥ 50)": growthbook,
    }


@dataclass(frozen=True, slots=True)
class Verdicts:
    """Which runs a rule rolled back; of each run the minutes, requests and failures until then or the end."""

    fired: Flags
    minutes: Floats
    canary_requests: Floats
    canary_failures: Floats


def decide(rule: Rule, minutes: Minutes, p0: float) -> Verdicts:
    """Return what a rule does with every run."""
    fired = rule(minutes, p0)
    when = np.where(fired[:, -1], fired.argmax(axis=1), fired.shape[1] - 1)
    runs = np.arange(len(when))
    return Verdicts(
        fired=fired[:, -1],
        minutes=when + 1.0,
        canary_requests=np.cumsum(minutes.canary, axis=1)[runs, when],
        canary_failures=np.cumsum(minutes.canary_failed, axis=1)[runs, when],
    )


def _sums(minutes: Minutes) -> tuple[Floats, Floats, Floats, Floats]:
    """Return the counts since the beginning."""
    every = minutes.canary, minutes.canary_failed, minutes.stable, minutes.stable_failed
    first, second, third, fourth = (np.cumsum(one, axis=1) for one in every)
    return first, second, third, fourth


def _success(total: Floats, failed: Floats) -> Floats:
    """Return the success rate, NaN without traffic."""
    return np.where(total > 0, 1 - failed / np.maximum(total, 1), np.nan)


def _rate(failed: Floats, total: Floats) -> Floats:
    """Return the error rate per minute, 0 without traffic."""
    return np.asarray(failed / np.maximum(total, 1))


def _ratio(ours: Floats, theirs: Floats, end: int) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(ours[:, :end].mean(axis=1) / theirs[:, :end].mean(axis=1))


def _high(ours: Floats, theirs: Floats) -> Flags:
    """Return whether the Mann-Whitney interval of the shift is above the tolerated effect."""
    length = ours.shape[1]
    shifts = (ours[:, :, None] - theirs[:, None, :]).reshape(len(ours), -1)
    deviation = np.sqrt(length * length * (2 * length + 1) / 12)
    low = max(0, round(length * length / 2 - ndtri((1 + KAYENTA_CONFIDENCE) / 2) * deviation) - 1)
    middle = length * length // 2
    ordered = np.partition(shifts, (low, middle), axis=1)
    estimate = ordered[:, middle]
    return np.asarray(ordered[:, low] > KAYENTA_EFFECT * np.abs(estimate))


def _ever(fired: Flags) -> Flags:
    return np.asarray(np.maximum.accumulate(fired, axis=1))


def _later(fired: Flags, minutes: int, length: int) -> Flags:
    """Return `fired`, told `minutes` later, in a table of `length` minutes."""
    table = np.zeros((len(fired), length), bool)
    kept = max(0, min(fired.shape[1], length - minutes))
    table[:, minutes : minutes + kept] = fired[:, :kept]
    return _ever(table)
