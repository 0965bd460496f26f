"""How both arms are lately, against stable before the rollout: pure functions.

Absolute, because both arms share one machine and slow each other: no comparison of the two shows that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from serve.rollout.policy import EvidenceShares, HealthLimits
from serve.rollout.recording.evidence import ArmName, Baseline, Recent, ReplicaEvidence
from serve.rollout.recording.pooling import quantile, recent, recent_sources

LEAST_RECOVERED = 10
"""Requests that stable must have answered before it counts as recovered."""


@dataclass(frozen=True, slots=True)
class Health:
    """Both arms lately, against stable before the rollout.

    An arm is degraded only on enough requests; `measured` says that stable has answered at least some.
    """

    stable_degraded: bool = False
    canary_degraded: bool = False
    measured: bool = False
    sentence: str = ""


def check_health(
    documents: Sequence[ReplicaEvidence],
    baseline: Baseline,
    limits: HealthLimits,
    shares: EvidenceShares | None = None,
) -> Health:
    """Return how both arms were over the limits' window, on all replicas.

    An arm that one source alone saw degraded, against what enough of the others saw, is not degraded;
    `shares` say whether that matters.
    """
    shares = shares or EvidenceShares()
    told = {arm: _agreed(documents, arm, baseline, limits, shares) for arm in ("stable", "canary")}
    return Health(
        stable_degraded=bool(told["stable"]),
        canary_degraded=bool(told["canary"]),
        measured=recent(documents, "stable").requests >= min(LEAST_RECOVERED, limits.min_requests),
        sentence="; ".join(f"{arm}: {text}" for arm, text in told.items() if text),
    )


def _agreed(
    documents: Sequence[ReplicaEvidence],
    arm: ArmName,
    baseline: Baseline,
    limits: HealthLimits,
    shares: EvidenceShares,
) -> str:
    """Return how an arm broke a limit lately, '' where it did not or where one source alone says so."""
    bad = degradation(recent(documents, arm), baseline, limits)
    if not bad:
        return ""
    few = limits.model_copy(update={"min_requests": min(LEAST_RECOVERED, limits.min_requests)})
    for name in recent_sources(documents, arm):
        rest = recent(documents, arm, without=name)
        contradicts = rest.requests >= few.min_requests and not degradation(rest, baseline, few)
        if contradicts and shares.share_of(name) < 1:
            return ""
    return bad


def degradation(arm: Recent, baseline: Baseline, limits: HealthLimits) -> str:
    """Return how an arm broke an absolute limit lately, '' when it did not or has too few requests."""
    if arm.requests < limits.min_requests:
        return ""
    most = limits.error_factor * baseline.error_rate + limits.error_slack
    rate = arm.failures / arm.requests
    if rate > most:
        return f"{arm.failures} of {arm.requests} requests failed, over the limit of {most:.1%}"
    for what, histogram, before in (
        ("time to first token", arm.first_token, baseline.first_token),
        ("time per output token", arm.per_token, baseline.per_token),
    ):
        median = quantile(histogram, 0.5)
        enough = sum(histogram.values()) >= limits.min_requests
        if before and enough and median is not None and median > limits.latency_factor * before[0]:
            factor = median / before[0]
            return f"median {what} {median:.3g} s is {factor:.1f} times what stable had before"
    return ""
