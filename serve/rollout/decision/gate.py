"""What must hold before a canary meets users, and how both arms are lately: pure functions.

A version gets weight only when every live replica reports it loaded, it is proved, and its golden
prompts were answered. Health is absolute, against stable before the rollout, because both arms share one
machine and slow each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from registry.records import Heartbeat, RolloutEntry
from registry.views.view import AdapterView
from serve.rollout.decision.policy import AbsoluteGuard
from serve.rollout.decision.proposal import Gate, Health
from serve.rollout.recording.evidence import Baseline, Recent, ReplicaEvidence
from serve.rollout.recording.pooling import quantile, recent

LEAST_RECOVERED = 10
"""Requests that stable must have answered before it counts as recovered."""


def check_gate(
    entry: RolloutEntry,
    adapter: AdapterView,
    replicas: Sequence[Heartbeat],
    *,
    require_proof: bool,
    golden: Mapping[str, bool] | None,
    failure: str,
) -> Gate:
    """Return whether the rollout may leave `preloading`.

    `replicas` are the live ones; `golden` maps each golden prompt to whether it was answered, empty while
    nobody has asked, None where the adapter has none; `failure` is why this replica cannot load the
    canary, '' if it can.
    """
    if failure:
        return Gate(ready=False, failed=failure)
    if golden and not all(golden.values()):
        wrong = ", ".join(sorted(name for name, answered in golden.items() if not answered))
        return Gate(ready=False, failed=f"golden prompts without the right answer: {wrong}")
    missing = [*_missing_loads(entry, replicas)]
    if require_proof and entry.canary not in adapter.proved:
        missing.append(f"{adapter.name}@{entry.canary} is not proved yet")
    if golden is not None and not golden:
        missing.append("the golden prompts have not been answered yet")
    return Gate(ready=not missing, missing="; ".join(missing))


def _missing_loads(entry: RolloutEntry, replicas: Sequence[Heartbeat]) -> list[str]:
    names = [f"{entry.adapter}@{number}" for number in (entry.canary, entry.stable) if number]
    serving = [one for one in replicas if one.state != "draining"]
    if not serving:
        return ["no replica is live"]
    lacking = {one.replica: [name for name in names if name not in one.resident] for one in serving}
    return [f"{replica} has not loaded {', '.join(found)}" for replica, found in lacking.items() if found]


def check_forbidden(entry: RolloutEntry, adapter: AdapterView) -> str:
    """Return why the canary may not be served any more, '' when it may."""
    name = f"{adapter.name}@{entry.canary}"
    if entry.canary in adapter.quarantined:
        return f"{name} is quarantined: {adapter.quarantined[entry.canary]}"
    if entry.canary not in adapter.versions:
        return f"{name} does not exist any more"
    return ""


def check_health(documents: Sequence[ReplicaEvidence], baseline: Baseline, guard: AbsoluteGuard) -> Health:
    """Return how both arms were over the guard's window, on all replicas."""
    stable, canary = recent(documents, "stable"), recent(documents, "canary")
    bad_stable = degradation(stable, baseline, guard)
    bad_canary = degradation(canary, baseline, guard)
    told = [f"{arm}: {text}" for arm, text in (("stable", bad_stable), ("canary", bad_canary)) if text]
    return Health(
        stable_degraded=bool(bad_stable),
        canary_degraded=bool(bad_canary),
        measured=stable.requests >= min(LEAST_RECOVERED, guard.min_requests),
        sentence="; ".join(told),
    )


def degradation(arm: Recent, baseline: Baseline, guard: AbsoluteGuard) -> str:
    """Return how an arm broke an absolute limit lately, '' when it did not or has too few requests."""
    if arm.requests < guard.min_requests:
        return ""
    limit = guard.error_factor * baseline.error_rate + guard.error_slack
    rate = arm.failures / arm.requests
    if rate > limit:
        return f"{arm.failures} of {arm.requests} requests failed, over the limit of {limit:.1%}"
    for what, histogram, before in (
        ("time to first token", arm.first_token, baseline.first_token),
        ("time per output token", arm.per_token, baseline.per_token),
    ):
        median = quantile(histogram, 0.5)
        enough = sum(histogram.values()) >= guard.min_requests
        if before and enough and median is not None and median > guard.latency_factor * before[0]:
            factor = median / before[0]
            return f"median {what} {median:.3g} s is {factor:.1f} times what stable had before"
    return ""
