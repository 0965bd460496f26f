"""What a rollout would take, before it begins: requests, time, and what it could detect.

Pure functions of a policy. The planning formula (`statistics/derivations.md` 9): failures that must have been
seen are about (ln(1/alpha) + 1.2) / KL(theta1 || theta0), where theta is the canary's share of failures at
the step's weight, without harm (theta0) and with `factor` times the failures (theta1).
"""

from __future__ import annotations

import math

from registry.entries.rollouts import FULL_WEIGHT
from serve.rollout.documents import DetectionDocument, PlannedMetric, PlannedStep
from serve.rollout.policy import Policy, PolicyMetrics, Promotion, RampStep

ASSUMED_RATE = 0.01
FACTORS = (2.0, 5.0)
# Of the mixture of three concentrations, in nats; measured against simulated runs.
_MIXTURE_COST = 1.2


def failures_needed(alpha: float, weight: float, factor: float, margin: float = 1.0) -> float:
    """Return how many failures of both arms show that the canary's rate is `factor` times stable's.

    `weight` is the canary's share, 0 … 1; infinite where `factor` is not above `margin`.
    """
    without, with_harm = _share(weight, margin), _share(weight, factor)
    if with_harm <= without:
        return math.inf
    gain = with_harm * math.log(with_harm / without)
    gain += (1 - with_harm) * math.log((1 - with_harm) / (1 - without))
    return (math.log(1 / alpha) + _MIXTURE_COST) / gain


def requests_needed(alpha: float, weight: float, factor: float, rate: float, margin: float = 1.0) -> float:
    """Return how many of the canary's requests these failures take, where stable fails at `rate`."""
    failing = min(1.0, rate * factor)
    return failures_needed(alpha, weight, factor, margin) * _share(weight, factor) / failing


def plan_steps(policy: Policy, rate: float) -> list[PlannedStep]:
    """Return each step with the adapter's requests that it takes and what it could detect."""
    return [_plan_step(step, policy, rate) for step in policy.steps]


def plan_metrics(metrics: PolicyMetrics) -> list[PlannedMetric]:
    """Return what is tested, each with its share of the false alarms."""
    found = []
    if (errors := metrics.errors) is not None:
        times = "stable's" if errors.margin == 1 else f"{errors.margin:g} times stable's"
        found.append(_metric("errors", errors.alpha, f"failed requests (first of a unit) above {times} rate"))
    if (latency := metrics.latency) is not None:
        fact = (
            f"slower than stable was before (first token: by more than {latency.first_token_margin:g} times)"
        )
        found.append(_metric("latency", latency.alpha, fact))
    if (feedback := metrics.feedback) is not None:
        fact = f"mean score lower than stable's by more than {feedback.tolerance:g}"
        found.append(_metric("feedback", feedback.alpha, fact))
    if (form := metrics.format) is not None:
        pattern = f" {form.pattern}" if form.pattern else ""
        fact = f"answers that break the form ({form.kind}{pattern}) more often than stable's"
        found.append(_metric("format", form.alpha, fact))
    return found


def promises(promotion: Promotion) -> str:
    """Return in a sentence what promotes at the last step."""
    if promotion.no_harm_units is not None:
        return (
            f"no harm found after {promotion.no_harm_units} units and {promotion.no_harm_seconds:g} s, "
            "or the certificate if it comes first"
        )
    return (
        f"a certificate that failures are at most {promotion.margin:g} times stable's "
        f"(alpha {promotion.alpha:g}), or an upper limit of {promotion.bound:.1%} on the difference "
        f"after {promotion.bound_units} units"
    )


def shadow_requests(policy: Policy) -> int:
    """Return how many of stable's requests the shadow takes, 0 without one."""
    if policy.shadow is None:
        return 0
    return math.ceil(policy.shadow.pairs * FULL_WEIGHT / policy.shadow.share)


def _plan_step(step: RampStep, policy: Policy, rate: float) -> PlannedStep:
    return PlannedStep(
        weight=step.weight,
        min_units=step.min_units,
        min_seconds=step.min_seconds,
        requests=math.ceil(step.min_units * FULL_WEIGHT / step.weight),
        detects=[found for factor in FACTORS if (found := _detection(step, policy, factor, rate))],
    )


def _detection(step: RampStep, policy: Policy, factor: float, rate: float) -> DetectionDocument | None:
    errors = policy.metrics.errors
    if errors is None or factor <= errors.margin:
        return None
    share = step.weight / FULL_WEIGHT
    return DetectionDocument(
        factor=factor,
        failures=math.ceil(failures_needed(errors.alpha, share, factor, errors.margin)),
        canary_requests=math.ceil(requests_needed(errors.alpha, share, factor, rate, errors.margin)),
    )


def _metric(name: str, alpha: float, sentence: str) -> PlannedMetric:
    return PlannedMetric(metric=name, alpha=alpha, sentence=sentence)


def _share(weight: float, factor: float) -> float:
    return weight * factor / (weight * factor + 1 - weight)
