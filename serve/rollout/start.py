"""The beginning of a rollout: what is checked, what it supersedes, what it would take.

Owns the checks before the first entry. Invariant: everything that may be refused is refused before an
open rollout is superseded, so a refused start changes nothing.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from registry.errors import Conflict, Quarantined, UsageError
from registry.names import STABLE
from registry.records import RolloutEntry, Version
from registry.store import Registry
from registry.validation import requirements
from registry.validation.requirements import UnmetRequirement
from serve.rollout.decision.states import Event, EventType, RolloutState
from serve.rollout.documents import PlanDocument, version_name
from serve.rollout.plan import ASSUMED_RATE, plan_metrics, plan_steps, promises, shadow_requests
from serve.rollout.policy import Policy, policy_of
from serve.rollout.recording.baselines import freeze
from serve.rollout.recording.evidence import Baseline

if TYPE_CHECKING:
    from pydantic import JsonValue

BASELINE_AGE_SECONDS = 3_600.0
"""Older figures of stable are not what it is like before the rollout."""

_LEAST_REQUESTS = 200
_MAX_TRIES = 20


@dataclass(frozen=True, slots=True)
class RolloutRequest:
    """A start that somebody asks for.

    `forced` overrides that the version was rolled back lately, and what it lacks of what is required; for
    the latter `note` is the reason, and must be there.
    """

    adapter: str
    number: int
    policy: Policy
    who: str
    note: str = ""
    forced: bool = False


@dataclass(frozen=True, slots=True)
class Begun:
    """What a start did: each entry with the one before it, the superseded canary, remarks for a person."""

    changes: Sequence[tuple[RolloutEntry | None, RolloutEntry]]
    superseded: str | None
    warnings: Sequence[str]


@dataclass(frozen=True, slots=True)
class _Checked:
    canary: Version
    stable: Version | None
    supersedes: RolloutEntry | None
    baseline: Baseline
    forced: bool
    required: list[str]
    lacks: list[UnmetRequirement]
    warnings: list[str] = field(default_factory=list)


def start(registry: Registry, order: RolloutRequest, clock: Callable[[], float]) -> Begun:
    """Begin a rollout, after ending one of the same adapter that is open.

    Raises: NotFound; Quarantined; Conflict: stable already, open already, or rolled back lately and not
    forced; Unproved: it lacks what is required, and is not forced; UsageError: a webhook that is no URL, or
    forced past what it lacks without a reason.
    """
    changes: list[tuple[RolloutEntry | None, RolloutEntry]] = []
    pending: list[tuple[RolloutEntry | None, RolloutEntry]] = []
    superseded: str | None = None
    rollout_id = secrets.token_hex(8)
    warnings: list[str] = []
    last_check: list[_Checked] = []

    def decide(last: RolloutEntry | None) -> RolloutEntry:
        checked = _check(registry, order, last, clock())
        warnings[:], last_check[:] = checked.warnings, [checked]
        after = _next(order, checked, last, rollout_id, clock())
        pending[:] = [(last, after)]
        return after

    for _ in range(_MAX_TRIES):
        registry.append_rollout(order.adapter, decide)
        changes += pending
        before, after = changes[-1]
        if after.rollout == rollout_id:
            _record_force(registry, order, last_check[0])
            return Begun(changes, superseded, warnings)
        assert before is not None
        superseded = version_name(before.adapter, before.canary)
    raise Conflict(order.adapter, "others keep starting rollouts of it", "try again", param="name")


def plan(registry: Registry, order: RolloutRequest, now: float) -> PlanDocument:
    """Return what `start` would do; refuses what it would refuse, and changes nothing."""
    checked = _check(registry, order, registry.rollout(order.adapter), now)
    policy = order.policy
    known = checked.baseline.requests >= _LEAST_REQUESTS and checked.baseline.error_rate > 0
    rate = checked.baseline.error_rate if known else ASSUMED_RATE
    source = (
        f"stable's last {checked.baseline.requests} requests" if known else "assumed: too little is known"
    )
    steps = plan_steps(policy, rate)
    before = checked.supersedes
    return PlanDocument(
        adapter=order.adapter,
        stable=version_name(order.adapter, checked.stable.number if checked.stable else 0),
        canary=checked.canary.name,
        policy=policy.name,
        supersedes=None if before is None else version_name(before.adapter, before.canary),
        forced=checked.forced,
        base_rate=rate,
        base_rate_from=source,
        shadow_requests=shadow_requests(policy),
        steps=steps,
        metrics=plan_metrics(policy.metrics),
        alpha=policy.alpha,
        requests=shadow_requests(policy) + sum(step.requests for step in steps),
        seconds=sum(step.min_seconds for step in policy.steps),
        promotes=promises(policy.promotion),
        requires=tuple(checked.required),
        warnings=[*checked.warnings, *_unknown(checked.baseline)],
    )


def _check(registry: Registry, order: RolloutRequest, last: RolloutEntry | None, now: float) -> _Checked:
    canary = registry.version(order.adapter, order.number)
    reason = registry.quarantined(order.adapter, order.number)
    if reason is not None:
        fact = f"is quarantined ({reason})"
        raise Quarantined(canary.name, fact, "register it again, or choose another version", param="version")
    _check_webhooks(order.policy)
    supersedes = last if last is not None and last.open else None
    view = registry.adapter_view(order.adapter)
    stable_number = view.aliases.get(STABLE)
    if supersedes is not None and supersedes.serving != order.number == supersedes.canary:
        fact = f"is being rolled out already ({supersedes.state} at {supersedes.weight / 100:g}%)"
        remedy = f"abort that first: `wardrobe rollout abort {order.adapter}`"
        raise Conflict(canary.name, fact, remedy, param="version")
    if stable_number == order.number:
        fact = "is the stable version already"
        raise Conflict(canary.name, fact, "name another version", param="version")
    stable = None if stable_number is None else registry.version(order.adapter, stable_number)
    lacks = _refuse_unproved(registry, order, canary, stable_number)
    forced = _refuse_denied(registry, order, canary, now) or bool(lacks)
    baseline = _baseline(registry, order.adapter, now)
    required = [one.value for one in dict.fromkeys((*registry.required(), *order.policy.require))]
    warnings = [
        *_warnings(canary, stable),
        *(f"forced past {one.requirement}: {one.sentence}" for one in lacks),
    ]
    return _Checked(canary, stable, supersedes, baseline, forced, required, lacks, warnings)


def _refuse_unproved(
    registry: Registry, order: RolloutRequest, canary: Version, stable: int | None
) -> list[UnmetRequirement]:
    """Return what the canary lacks of what is required, where the order goes past it."""
    found = registry.lacks(canary, stable, order.policy.require)
    if found and not order.forced:
        raise requirements.refusal(canary, found, force="--force --why TEXT")
    if found and not order.note.strip():
        fact = f"goes past {requirements.names(found)}, which is recorded with its reason, and none is given"
        raise UsageError("--force", fact, "add --why TEXT", param="note")
    return found


def _record_force(registry: Registry, order: RolloutRequest, checked: _Checked) -> None:
    if checked.lacks:
        registry.record_force(checked.canary, checked.lacks, action="rollout", why=order.note, who=order.who)


def _refuse_denied(registry: Registry, order: RolloutRequest, canary: Version, now: float) -> bool:
    """Return whether the start is one that only `forced` allows."""
    from serve.rollout.decision.machine import denied

    denial = denied(registry.rollout_log(order.adapter), canary, now)
    if denial is not None and not order.forced:
        raise denial
    return denial is not None


def _check_webhooks(policy: Policy) -> None:
    for url in policy.webhooks:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            # Not the URL itself: its path is often the secret.
            fact = f"webhooks: one of {len(policy.webhooks)} is not an http or https URL"
            raise UsageError(policy.name, fact, "write https://host/path", param="webhooks")


def _baseline(registry: Registry, adapter: str, now: float) -> Baseline:
    from serve.rollout.recording.keeper import read_baselines

    return freeze(read_baselines(registry, adapter, now, BASELINE_AGE_SECONDS))


def _warnings(canary: Version, stable: Version | None) -> list[str]:
    found = []
    if stable is None:
        found.append(f"{canary.adapter} has no stable version: the base model is the control")
    elif stable.digest == canary.digest:
        found.append(f"{canary.name} has the content of {stable.name}: this compares a version with itself")
    return found


def _unknown(baseline: Baseline) -> list[str]:
    if baseline.per_token:
        return []
    return ["stable's times are not known yet: latency is tested once they could be measured"]


def _next(
    order: RolloutRequest, checked: _Checked, last: RolloutEntry | None, rollout_id: str, now: float
) -> RolloutEntry:
    """Return the entry that comes next: the end of what is open, else the beginning."""
    from serve.rollout.decision.machine import begin, transition

    if checked.supersedes is not None:
        event = _end_of(checked.supersedes, order.who, checked.canary.name)
        policy = policy_of(checked.supersedes)
        return transition(checked.supersedes, event, policy, now)
    entry = begin(
        order.adapter,
        checked.canary,
        checked.stable,
        order.policy,
        who=order.who,
        now=now,
        seq=1 if last is None else last.seq + 1,
        rollout_id=rollout_id,
        baseline=checked.baseline,
        forced=checked.forced,
    )
    past = f", forced past {requirements.names(checked.lacks)}" if checked.lacks else ""
    facts: dict[str, JsonValue] = {}
    if checked.required or checked.lacks:
        facts = {"required": [*checked.required], "lacking": [one.requirement for one in checked.lacks]}
    note = f": {order.note}" if order.note else ""
    return replace(entry, sentence=f"{entry.sentence}{past}{note}", facts=facts)


def _end_of(entry: RolloutEntry, who: str, canary: str) -> Event:
    """Return what ends an open rollout for the sake of another one."""
    if entry.state == RolloutState.PROMOTED:
        # Its version is what users get: the next rollout is compared with it, not with the one before.
        sentence = f"{who} started {canary}, which ends the cool-down"
        return Event(EventType.COOLED, who, "superseded", sentence)
    return Event(EventType.SUPERSEDE, who, "superseded", f"{who} started {canary}, which supersedes it")
