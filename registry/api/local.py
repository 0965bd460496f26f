"""The desk on a root: every question is one call of the store, every answer a document.

Owns no rule: what is allowed is the store's decision.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from registry.api import describe
from registry.api import documents as doc
from registry.entries.keys import KeyStore
from registry.errors import WardrobeError
from registry.names import STABLE, check_adapter_name

if TYPE_CHECKING:
    from registry.api.desk import Progress, Registration
    from registry.store import Registry


class LocalDesk:
    """A desk on the root itself; `who` signs every change."""

    def __init__(self, registry: Registry, *, who: str) -> None:
        self._registry = registry
        self._who = who

    def list(self) -> doc.AdapterList:
        """Return every adapter in brief."""
        found = [describe.summarise(summary) for summary in self._registry.summaries()]
        return doc.AdapterList(adapters=found)

    def show(self, adapter: str) -> doc.AdapterDocument:
        """Return one adapter with its live versions."""
        view = self._registry.adapter_view(check_adapter_name(adapter))
        return doc.AdapterDocument(
            adapter=adapter,
            stable=view.aliases.get(STABLE),
            aliases=dict(sorted(view.aliases.items())),
            versions=[
                describe.describe_version(version, view.aliases, view.quarantined.get(number))
                for number, version in sorted(view.versions.items())
            ],
            unreadable={
                number: reason
                for number, reason in sorted(view.quarantined.items())
                if number not in view.versions
            },
        )

    def show_version(self, adapter: str, number: int) -> doc.VersionDetail:
        """Return one version with its files and attestations."""
        version = self._registry.version(check_adapter_name(adapter), number)
        found = describe.describe_version(
            version, self._registry.aliases(adapter), self._registry.quarantined(adapter, number)
        )
        known, broken = self._registry.catalogue.attestations.survey(adapter, number)
        attestations = [
            doc.AttestationDocument(
                kind=entry.kind, seq=entry.seq, who=entry.who, at=entry.at, body=dict(entry.body)
            )
            for entry in known
        ]
        return describe.detail_version(found, version, attestations, [str(error) for error in broken])

    def history(self, adapter: str) -> doc.HistoryDocument:
        """Return every alias move of one adapter."""
        moves = self._registry.history(check_adapter_name(adapter))
        return doc.HistoryDocument(adapter=adapter, moves=[describe.describe_move(move) for move in moves])

    def audit(self, since: float | None = None) -> doc.AuditList:
        """Return every change from `since` (UNIX seconds) on."""
        entries = [
            doc.AuditDocument(
                at=entry.at,
                who=entry.who,
                action=entry.action,
                subject=entry.subject,
                detail=entry.detail,
            )
            for entry in self._registry.audit(since)
        ]
        return doc.AuditList(entries=entries)

    def register(
        self,
        registration: Registration,
        advance: Progress,  # noqa: ARG002  the desk's signature
    ) -> doc.PublishedDocument:
        """Publish a folder; nothing is sent, so `advance` is not called."""
        published = self._registry.publish(
            check_adapter_name(registration.adapter),
            registration.folder,
            alias=registration.alias,
            no_stable=registration.no_stable,
            note=registration.note,
            who=self._who,
            golden=registration.golden,
            allow_duplicate=registration.allow_duplicate,
            require=registration.require,
            follow_links=registration.follow_links,
        )
        return describe.describe_publish(published)

    def verify(self, adapter: str | None = None, number: int | None = None) -> doc.VerifyReport:
        """Hash versions again; one that is not as published is quarantined."""
        results = [
            doc.VerifyDocument(name=result.name, ok=result.ok, problem=result.problem)
            for result in self._registry.verify(adapter, number)
        ]
        return doc.VerifyReport(ok=all(result.ok for result in results), results=results)

    def set_alias(self, adapter: str, alias: str, number: int, force: str = "") -> doc.MoveDocument:
        """Point an alias to a version; `force` is the reason for moving `stable` past what it lacks."""
        check_adapter_name(adapter)
        move = self._registry.set_alias(adapter, alias, number, who=self._who, force=force)
        return describe.describe_move(move)

    def remove_alias(self, adapter: str, alias: str) -> doc.MoveDocument:
        """Remove an alias; its history stays."""
        move = self._registry.remove_alias(check_adapter_name(adapter), alias, who=self._who)
        return describe.describe_move(move)

    def promote(self, adapter: str, number: int, force: str = "") -> doc.MoveDocument:
        """Point `stable` to a version; `force` as in `set_alias`."""
        check_adapter_name(adapter)
        return describe.describe_move(self._registry.promote(adapter, number, who=self._who, force=force))

    def rollback(self, adapter: str) -> doc.MoveDocument:
        """Undo the last forward move of `stable`."""
        return describe.describe_move(self._registry.rollback(check_adapter_name(adapter), who=self._who))

    def delete(self, adapter: str, number: int) -> doc.DeletedDocument:
        """Put a tombstone on a version."""
        self._registry.delete(check_adapter_name(adapter), number, who=self._who)
        return doc.DeletedDocument(adapter=adapter, version=number)

    def gc(self, *, apply: bool, now: bool = False) -> doc.GcDocument:
        """Collect what nothing uses, or say what would be collected; `now` frees the room at once."""
        report = self._registry.gc(apply=apply, at_once=now)
        return doc.GcDocument(
            applied=apply,
            trashed=list(report.trashed),
            emptied=list(report.emptied),
            kept_because=dict(report.kept_because),
        )

    def export(self, adapter: str, number: int, target: Path, base: str | None = None) -> doc.ExportDocument:
        """Write a version's files into the new folder `target`; its config calls the base `base` if given."""
        version = self._registry.version(check_adapter_name(adapter), number)
        named = self._registry.export(adapter, number, target, base=base)
        return doc.ExportDocument(
            adapter=adapter, version=number, digest=version.digest, path=str(target), base=named
        )

    def replicas(self) -> doc.ReplicaList:
        """Return every replica by its last heartbeat."""
        found = [describe.describe_replica(beat, live=live) for beat, live in self._registry.replicas()]
        return doc.ReplicaList(replicas=found)

    def status(self) -> doc.StatusDocument:
        """Return the whole at a glance; what cannot be read is a problem, and hides nothing else."""
        problems: dict[str, str] = {}
        base, every = self._registry.base, self.list().adapters
        summaries = [summary for summary in every if not summary.problem]
        rollouts = self._rollouts(problems)
        quarantined = self._quarantined([summary.adapter for summary in summaries], problems)
        problems |= {summary.adapter: summary.problem for summary in every if summary.problem}
        return doc.StatusDocument(
            base=doc.BaseDocument(name=base.name, fingerprint=base.fingerprint),
            max_lora_rank=self._registry.limits.max_lora_rank,
            auth=self._auth(problems),
            adapters=len(summaries),
            versions=sum(summary.versions for summary in summaries),
            without_stable=[summary.adapter for summary in summaries if summary.stable is None],
            quarantined=quarantined,
            replicas=self._replicas(problems),
            rollouts=rollouts,
            problems=problems,
            stable_quarantined=[
                f"{summary.adapter}@{summary.stable}" for summary in summaries if summary.stable_quarantined
            ],
        )

    def _auth(self, problems: dict[str, str]) -> bool:
        try:
            return KeyStore(self._registry.root).in_use()
        except WardrobeError as error:
            problems["keys"] = str(error)
            return True  # as servers do, which let nobody in then

    def _replicas(self, problems: dict[str, str]) -> Sequence[doc.ReplicaDocument]:
        try:
            broken = self._registry.replica_problems()
            problems |= {f"replica {name}": text for name, text in broken.items()}
            return self.replicas().replicas
        except WardrobeError as error:
            problems["replicas"] = str(error)
            return []

    def _rollouts(self, problems: dict[str, str]) -> Sequence[doc.OpenRollout]:
        catalogue = self._registry.catalogue
        try:
            found, broken = catalogue.each(self._registry.rollout, catalogue.rollouts.names())
        except WardrobeError as error:
            found, broken = {}, {"rollouts": str(error)}
        problems |= broken
        return [
            doc.OpenRollout(adapter=one.adapter, canary=one.canary, state=one.state, weight=one.weight)
            for one in found.values()
            if one is not None and one.open
        ]

    def _quarantined(self, adapters: Sequence[str], problems: dict[str, str]) -> dict[str, str]:
        catalogue = self._registry.catalogue

        def look(adapter: str) -> dict[str, str]:
            reasons = catalogue.quarantine.reasons(adapter)
            live = set(catalogue.live(adapter)) if reasons else set()
            return {f"{adapter}@{n}": reason for n, reason in sorted(reasons.items()) if n in live}

        found, broken = catalogue.each(look, adapters)
        problems |= broken
        return {name: reason for one in found.values() for name, reason in one.items()}
