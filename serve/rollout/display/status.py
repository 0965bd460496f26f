"""One document for everything that is known of a rollout: `status --json`, and GET over HTTP.

Built from the root alone, so any process can tell. Owns the assembly and the sentences on what is
missing; counts are `serve.rollout.recording.pooling`'s and verdicts `serve.rollout.statistics`'.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from registry.errors import NotFound
from registry.records import Heartbeat, RolloutEntry
from registry.store import Registry
from serve.rollout.display.arms import arms
from serve.rollout.display.explain import decisions
from serve.rollout.display.missing import Waiting, missing
from serve.rollout.display.sources import sources
from serve.rollout.documents import (
    CheckDocument,
    ReporterDocument,
    RolloutBrief,
    RolloutStatus,
    StepDocument,
    version_name,
)
from serve.rollout.policy import Policy, policy_of
from serve.rollout.recording.evidence import Evidence, ReplicaEvidence, baseline_of
from serve.rollout.recording.keeper import read_evidence
from serve.rollout.recording.pooling import pool
from serve.rollout.statistics.judgement import Judgement, MetricCheck

LAST_DECISIONS = 6
_NEVER_OVER = 0.0


@dataclass(frozen=True, slots=True)
class RolloutFacts:
    """Everything that a status is made of; `unreadable` names evidence that could not be parsed.

    `proved` says whether a server found that the canary answers unlike the base model.
    """

    log: Sequence[RolloutEntry]
    documents: Sequence[ReplicaEvidence]
    evidence: Evidence
    judgement: Judgement
    replicas: Sequence[tuple[Heartbeat, bool]]
    now: float
    unreadable: Sequence[str] = ()
    proved: bool = True


def read_status(registry: Registry, adapter: str, now: float) -> RolloutStatus:
    """Return the status of an adapter's last rollout, open or not; `now` is UNIX seconds.

    Raises: NotFound: it never had one.
    """
    log = registry.rollout_log(adapter)
    if not log:
        raise no_rollout(registry, adapter)
    return describe(_known(registry, log, now))


def no_rollout(registry: Registry, adapter: str) -> NotFound:
    """Return the error that an adapter never had a rollout.

    Raises: NotFound: there is no such adapter.
    """
    registry.catalogue.require(adapter)
    remedy = f"start one: `wardrobe rollout start {adapter}@N`"
    return NotFound(adapter, "has had no rollout", remedy, param="name")


def describe(known: RolloutFacts) -> RolloutStatus:
    """Return the status of the last rollout of a log that is not empty."""
    entry = known.log[-1]
    policy = policy_of(entry)
    judgement = known.judgement
    reporters = _reporters(known, entry)
    waiting = Waiting(entry, policy, known.evidence, judgement, reporters, known.now, known.proved)
    return RolloutStatus.of(
        entry,
        policy=policy.name,
        unit=policy.unit,
        alpha=policy.alpha,
        now=known.now,
        steps=_steps(entry, policy),
        step_units=known.evidence.step_units,
        arms=arms(known.documents, known.evidence, _versions(entry, policy)),
        pairs=dict(known.evidence.pairs),
        sources=sources(known.evidence),
        checks=[_check(check) for check in judgement.checks],
        imbalance=_check(judgement.imbalance),
        certificate=judgement.certificate,
        needed=waiting.needed,
        missing=[*missing(waiting), *known.unreadable],
        replicas=reporters,
        decisions=decisions([one for one in known.log if one.rollout == entry.rollout])[-LAST_DECISIONS:],
    )


def brief(entry: RolloutEntry) -> RolloutBrief:
    """Return a rollout in a line, from its last entry alone."""
    policy = policy_of(entry)
    return RolloutBrief.of(entry, policy=policy.name, steps=len(policy.steps))


def _known(registry: Registry, log: Sequence[RolloutEntry], now: float) -> RolloutFacts:
    from serve.rollout.statistics.judge import judge  # numpy and scipy

    entry = log[-1]
    damaged: list[BaseException] = []
    documents = read_evidence(registry, entry.rollout, damaged.append)
    evidence = pool(documents, step=entry.step)
    policy, baseline = policy_of(entry), baseline_of(entry)
    judgement = judge(policy, evidence, baseline)
    view = registry.catalogue.view(entry.adapter)
    proved = view is not None and entry.canary in view.proved
    unreadable = [str(error) for error in damaged]
    return RolloutFacts(log, documents, evidence, judgement, registry.replicas(), now, unreadable, proved)


def _versions(entry: RolloutEntry, policy: Policy) -> dict[str, str]:
    found = {
        "stable": version_name(entry.adapter, entry.stable),
        "canary": version_name(entry.adapter, entry.canary),
    }
    return {**found, "base": version_name(entry.adapter, 0)} if policy.observe_base else found


def _steps(entry: RolloutEntry, policy: Policy) -> list[StepDocument]:
    at = len(policy.steps) if entry.state in {"promoted", "closed"} else entry.step
    return [
        StepDocument(
            **step.model_dump(),
            state="done" if place < at else "now" if place == at and entry.open else "ahead",
        )
        for place, step in enumerate(policy.steps)
    ]


def _check(check: MetricCheck) -> CheckDocument:
    limit = -math.log(check.alpha)
    log_e = check.log_e if math.isfinite(check.log_e) else math.copysign(limit * 1e3, check.log_e)
    return CheckDocument(
        metric=check.metric,
        verdict=check.verdict.value,
        log_e=log_e,
        alpha=check.alpha,
        progress=min(1.0, max(_NEVER_OVER, log_e / limit)),
        stable=check.stable,
        canary=check.canary,
        needed=check.needed,
        sentence=check.sentence,
        disputed=check.disputed,
    )


def _reporters(known: RolloutFacts, entry: RolloutEntry) -> list[ReporterDocument]:
    """Return every replica that lives or has seen something of this rollout."""
    evidence = {document.replica: document for document in known.documents}
    beats = {beat.replica: (beat, live) for beat, live in known.replicas}
    names = {name for name, (_, live) in beats.items() if live} | evidence.keys()
    return [_reporter(name, beats.get(name), evidence.get(name), entry, known.now) for name in sorted(names)]


def _reporter(
    name: str,
    heartbeat: tuple[Heartbeat, bool] | None,
    evidence: ReplicaEvidence | None,
    entry: RolloutEntry,
    now: float,
) -> ReporterDocument:
    resident = heartbeat[0].resident if heartbeat else ()
    return ReporterDocument(
        replica=name,
        live=heartbeat is not None and heartbeat[1],
        holds_canary=version_name(entry.adapter, entry.canary) in resident,
        holds_stable=not entry.stable or version_name(entry.adapter, entry.stable) in resident,
        evidence_age=max(0.0, now - evidence.at) if evidence else None,
        seq=evidence.seq if evidence else 0,
        braking=evidence is not None and evidence.braking,
    )
