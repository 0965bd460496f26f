"""The whole root at a glance; what cannot be read is a problem, and hides nothing else."""

from __future__ import annotations

from collections.abc import Sequence

from registry.api import documents as doc
from registry.entries.keys import KeyStore, ungrouped_keys
from registry.entries.rights import DEFAULT_GROUP
from registry.errors import WardrobeError
from registry.store import Registry


def survey(registry: Registry) -> doc.StatusDocument:
    """Return the status of a root."""
    problems: dict[str, str] = {}
    base, every = registry.base, registry.summaries()
    summaries = [summary for summary in every if not summary.problem]
    rollouts = _rollouts(registry, problems)
    quarantined = _quarantined(registry, [summary.adapter for summary in summaries], problems)
    groups = _groups(registry, problems)
    problems |= {summary.adapter: summary.problem for summary in every if summary.problem}
    return doc.StatusDocument(
        base=doc.BaseDocument(name=base.name, fingerprint=base.fingerprint),
        groups=len(groups),
        ungrouped_keys=_ungrouped(registry, problems) if groups else 0,
        max_lora_rank=registry.limits.max_lora_rank,
        auth=_auth(registry, problems),
        adapters=len(summaries),
        versions=sum(summary.versions for summary in summaries),
        without_stable=[summary.adapter for summary in summaries if summary.stable is None],
        quarantined=quarantined,
        replicas=_replicas(registry, problems),
        rollouts=rollouts,
        problems=problems,
        stable_quarantined=[
            f"{summary.adapter}@{summary.stable}" for summary in summaries if summary.stable_quarantined
        ],
    )


def _auth(registry: Registry, problems: dict[str, str]) -> bool:
    try:
        return KeyStore(registry.root).in_use()
    except WardrobeError as error:
        problems["keys"] = str(error)
        return True  # as servers do, which let nobody in then


def _groups(registry: Registry, problems: dict[str, str]) -> list[str]:
    """Return the groups that were made, beside `default`."""
    try:
        found, broken = registry.catalogue.groups.survey()
    except WardrobeError as error:
        problems["groups"] = str(error)
        return []
    problems |= {f"group {name}": text for name, text in broken.items()}
    return [group.name for group in found if group.name != DEFAULT_GROUP]


def _ungrouped(registry: Registry, problems: dict[str, str]) -> int:
    try:
        return len(ungrouped_keys(registry.root, registry.catalogue.clock()))
    except WardrobeError as error:
        problems["keys"] = str(error)
        return 0


def _replicas(registry: Registry, problems: dict[str, str]) -> Sequence[doc.ReplicaDocument]:
    try:
        broken = registry.replica_problems()
        problems |= {f"replica {name}": text for name, text in broken.items()}
        return [doc.ReplicaDocument.of(beat, live=live) for beat, live in registry.replicas()]
    except WardrobeError as error:
        problems["replicas"] = str(error)
        return []


def _rollouts(registry: Registry, problems: dict[str, str]) -> Sequence[doc.OpenRollout]:
    catalogue = registry.catalogue
    try:
        found, broken = catalogue.each(registry.rollout, catalogue.rollouts.names())
    except WardrobeError as error:
        found, broken = {}, {"rollouts": str(error)}
    problems |= broken
    return [
        doc.OpenRollout(adapter=one.adapter, canary=one.canary, state=one.state, weight=one.weight)
        for one in found.values()
        if one is not None and one.open
    ]


def _quarantined(registry: Registry, adapters: Sequence[str], problems: dict[str, str]) -> dict[str, str]:
    catalogue = registry.catalogue

    def look(adapter: str) -> dict[str, str]:
        reasons = catalogue.quarantine.reasons(adapter)
        live = set(catalogue.live(adapter)) if reasons else set()
        return {f"{adapter}@{n}": reason for n, reason in sorted(reasons.items()) if n in live}

    found, broken = catalogue.each(look, adapters)
    problems |= broken
    return {name: reason for one in found.values() for name, reason in one.items()}
