"""The registry: one object for everything that may be asked of a root or done to it.

A facade: each method is one call into the part that owns the rule. Threads and processes may share a root.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from registry.changes import collect, export, moves, publish, retention, settlement, verification
from registry.changes.publish import PublishRequest
from registry.entries.keys import shared_secret
from registry.entries.rollouts import Decide
from registry.names import STABLE, ModelRef, check_base_name
from registry.records import (
    AdapterBrief,
    AliasMove,
    Attestation,
    AuditEntry,
    GcReport,
    Heartbeat,
    Limits,
    Published,
    RolloutEntry,
    VerifyResult,
    Version,
)
from registry.storage.reserve import urgently
from registry.storage.root import Root
from registry.validation.requirements import Requirement, UnmetRequirement
from registry.views import history
from registry.views.catalogue import Catalogue
from registry.views.history import AuditWish
from registry.views.view import AdapterView

if TYPE_CHECKING:
    from pydantic import JsonValue


class Registry:
    """An opened root."""

    def __init__(
        self,
        root: Root,
        *,
        inspector: publish.Inspector = publish.inspect,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.catalogue = Catalogue(root, clock)
        self.root: Path = root.path
        self.base, self.limits = root.base, root.limits
        self._inspector = inspector

    @classmethod
    def open(cls, root: Path) -> Registry:
        """Open the root at `root`.

        Raises: NotFound; UnsafeRoot; CorruptStore; UsageError: for an unknown key in wardrobe.toml.
        """
        return cls(Root.open(root))

    @classmethod
    def init(
        cls, root: Path, base_dir: Path, *, name: str | None = None, limits: Limits | None = None
    ) -> Registry:
        """Make the root for the base model in `base_dir`, or open the one that is there for the same base.

        `name` is the base's served name; without it what the path calls it, or what an existing root has.

        Raises: Conflict: when the root is another base's, or an adapter is called so; InvalidName: no base
        can be asked for by that name; whatever `read_base` raises.
        """
        from registry.validation.base import read_base

        base = read_base(base_dir, name)
        check_base_name(base.name)
        return cls(Root.init(root, base, limits or Limits(), rename=name is not None))

    def publish(
        self,
        adapter: str,
        folder: Path,
        *,
        who: str,
        alias: str | None = None,
        no_stable: bool = False,
        note: str = "",
        golden: Path | None = None,
        allow_duplicate: bool = False,
        lineage: Mapping[str, JsonValue] | None = None,
        require: Sequence[Requirement] = (),
        follow_links: bool = True,
    ) -> Published:
        """Check a PEFT LoRA folder and publish it as the adapter's next version.

        The same content again returns the version that exists, unless `allow_duplicate`. The first
        version becomes `stable` unless `no_stable`; `alias` is pointed to the version as well; `lineage`
        becomes an attestation. A version that lacks what the root requires, or `require`, does not become
        `stable`: a warning says why. Without `follow_links` a link in `folder` is refused.

        Raises: InvalidName; Conflict: the base is called so; InvalidAdapter; UsageError; Quarantined;
        Unproved: it is registered, but `alias` is `stable`; StorageFailed.
        """
        request = PublishRequest(
            adapter=adapter,
            folder=folder,
            who=who,
            alias=alias,
            no_stable=no_stable,
            note=note,
            golden=golden,
            allow_duplicate=allow_duplicate,
            lineage=lineage,
            require=tuple(require),
            follow_links=follow_links,
        )
        return self.register(request)

    def register(self, request: PublishRequest) -> Published:
        """Publish what `request` names; all as in `publish`."""
        return publish.publish(self.catalogue, request, self._inspector)

    def adapters(self) -> list[str]:
        """Return every adapter that has a live version, sorted."""
        return self.catalogue.names()

    def summaries(self) -> list[AdapterBrief]:
        """Return every adapter at a glance, without reading a manifest; a broken one has a `problem`."""
        return self.catalogue.summaries()

    def versions(self, adapter: str) -> list[Version]:
        """Return the live versions of an adapter, ascending; one with a broken manifest is left out.

        Raises: NotFound: the adapter never existed.
        """
        view = self.catalogue.view(self.catalogue.require(adapter))
        return [] if view is None else [version for _, version in sorted(view.versions.items())]

    def version(self, adapter: str, number: int) -> Version:
        """Return a live version.

        Raises: NotFound: names what exists; CorruptStore: its manifest cannot be read.
        """
        return self.catalogue.require_version(adapter, number)

    def aliases(self, adapter: str) -> dict[str, int]:
        """Return the present aliases of an adapter.

        Raises: NotFound: the adapter never existed.
        """
        return self.catalogue.pointers(self.catalogue.require(adapter))

    def adapter_view(self, adapter: str) -> AdapterView:
        """Return everything about an adapter that the hot path needs, read now.

        Raises: NotFound: no version of it is live.
        """
        return self.catalogue.require_view(adapter)

    def resolve(self, ref: ModelRef) -> Version:
        """Return the version that a model name means now; a bare name is its `stable`.

        Raises: NotFound: lists what exists; Quarantined.
        """
        return self.catalogue.require_view(ref.adapter, ref).resolve(ref)

    def set_alias(
        self, adapter: str, alias: str, number: int, *, who: str, why: str = "alias set", force: str = ""
    ) -> AliasMove:
        """Point an alias to a live version.

        `force` is the reason for moving `stable` past what the version lacks; it is recorded.

        Raises: InvalidName: also for `canary`; NotFound; Quarantined; Unproved; Conflict.
        """
        return moves.point(self.catalogue, adapter, alias, number, who=who, why=why, force=force)

    def remove_alias(self, adapter: str, alias: str, *, who: str) -> AliasMove:
        """Remove an alias; its history stays.

        Raises: InvalidName; NotFound; Conflict: it is `stable` and a rollout is open.
        """
        return urgently(self.root, lambda: moves.unset(self.catalogue, adapter, alias, who=who))

    def promote(self, adapter: str, number: int, *, who: str, force: str = "") -> AliasMove:
        """Point `stable` to a live version; `force` as in `set_alias`.

        Raises: NotFound; Quarantined; Unproved; Conflict: a rollout is open.
        """
        return moves.point(self.catalogue, adapter, STABLE, number, who=who, why="promote", force=force)

    def rollback(self, adapter: str, *, who: str) -> AliasMove:
        """Undo the last forward move of `stable`; twice goes two back. Nothing is required.

        Raises: NotFound; Conflict: there is nothing to go back to, or a rollout is open.
        """
        return urgently(self.root, lambda: moves.roll_back(self.catalogue, adapter, who=who))

    def delete(self, adapter: str, number: int, *, who: str) -> None:
        """Put a tombstone on a version; its files stay until `gc`, its number is never used again.

        Raises: NotFound; Conflict: an alias points to it, or an open rollout uses it.
        """
        urgently(self.root, lambda: moves.delete(self.catalogue, adapter, number, who=who))

    def quarantine(self, adapter: str, number: int, reason: str, *, who: str) -> None:
        """Forbid that a version is served; the first reason stays.

        Raises: NotFound.
        """
        urgently(self.root, lambda: verification.quarantine(self.catalogue, adapter, number, reason, who=who))

    def quarantined(self, adapter: str, number: int) -> str | None:
        """Return why a version may not be served, None when it may."""
        order = self.catalogue.quarantine.read(adapter, number)
        return order.reason if order else None

    def attest(
        self, adapter: str, number: int, kind: str, body: Mapping[str, JsonValue], *, who: str
    ) -> None:
        """Append what was found out about a live version.

        Raises: NotFound; InvalidName: for a kind that is not `[a-z][a-z0-9_]{0,31}`.
        """
        self.catalogue.require_version(adapter, number)
        self.catalogue.attestations.add(adapter, number, kind, body, who)
        self.catalogue.mark(adapter)

    def attestations(self, adapter: str, number: int, kind: str | None = None) -> list[Attestation]:
        """Return what was found out about a version, in order of time; of one kind, or all."""
        return self.catalogue.attestations.read(adapter, number, kind)

    def required(self) -> tuple[Requirement, ...]:
        """Return what the root requires of a version before `stable` moves to it, read now.

        Raises: UsageError: a key or a requirement that does not exist; CorruptStore.
        """
        return self.catalogue.root.required()

    def lacks(
        self, version: Version, replaces: int | None, also: Sequence[Requirement] = ()
    ) -> list[UnmetRequirement]:
        """Return what a version lacks of what the root requires, and `also`, to replace `replaces`.

        Raises: UsageError: wardrobe.toml names a requirement that does not exist; CorruptStore.
        """
        return moves.find_lacks(self.catalogue, version, replaces, also)

    def record_force(
        self, version: Version, found: Sequence[UnmetRequirement], *, action: str, why: str, who: str
    ) -> None:
        """Attest to a version that it was forced past what it lacks."""
        moves.record_force(self.catalogue, version, found, action=action, why=why, who=who)

    def verify(self, adapter: str | None = None, number: int | None = None) -> list[VerifyResult]:
        """Hash live versions again and quarantine those that are not as published.

        Raises: NotFound.
        """
        return verification.verify(self.catalogue, adapter, number)

    def verify_version(self, version: Version, *, content: bool = True) -> None:
        """Look at a version again before it is loaded; without `content` its files are not hashed.

        Raises: Quarantined: it was quarantined before; InvalidAdapter: its files are not as published
        (reason `digest`), and it is in quarantine now.
        """
        verification.verify_version(self.catalogue, version, content=content)

    def history(self, adapter: str) -> list[AliasMove]:
        """Return every move of every alias of an adapter, oldest first.

        Raises: NotFound.
        """
        return history.history(self.catalogue, adapter)

    def audit(self, since: float | None = None) -> list[AuditEntry]:
        """Return every change from `since` (UNIX seconds) on, oldest first; broken logs are named."""
        return history.audit(self.catalogue, since)

    def newest_changes(self, wish: AuditWish, limit: int) -> tuple[list[AuditEntry], float | None]:
        """Return the last `limit` changes that are wanted, newest first; see `registry.views.history.newest`.

        Raises: NotFound; InvalidName; StorageFailed.
        """
        return history.newest(self.catalogue, wish, limit)

    def gc(self, *, apply: bool = False, at_once: bool = False, now: float | None = None) -> GcReport:
        """Trash what nothing uses and empty the trash of a day ago; a dry run unless `apply`.

        `at_once` frees the room now: nothing waits in the trash for a day. It works on a full disk.

        Raises: CorruptStore, StorageFailed: something could not be read; nothing was moved then.
        """
        return urgently(
            self.root, lambda: collect.collect(self.catalogue, apply=apply, at_once=at_once, now=now)
        )

    def tidy(self) -> list[str]:
        """Remove what the servers wrote and nobody keeps (`[retention]`), make ready; return the paths.

        Raises: StorageFailed.
        """
        collect.keep_ready(self.catalogue)
        return retention.tidy(self.catalogue, self.catalogue.clock())

    def export(self, adapter: str, number: int, target: Path, *, base: str | None = None) -> str:
        """Copy a version's files into the new folder `target`, verified first; return what it calls the base.

        That is `base`, else the adapter's own words where they lead somewhere, else the base's folder.

        Raises: NotFound; InvalidAdapter: they are not as published; Conflict: `target` exists.
        """
        return export.export(self.catalogue, self.version(adapter, number), target, base)

    def golden(self, adapter: str) -> bytes | None:
        """Return the adapter's golden prompts (one JSON object per line), None when it has none."""
        return self.catalogue.golden(adapter)

    def rollout(self, adapter: str) -> RolloutEntry | None:
        """Return the last entry of an adapter's rollouts, open or not; None where there was never one."""
        return self.catalogue.rollouts.last(adapter)

    def rollout_log(self, adapter: str) -> list[RolloutEntry]:
        """Return every entry of every rollout of an adapter, oldest first."""
        return self.catalogue.rollouts.log(adapter)

    def append_rollout(self, adapter: str, decide: Decide, *, urgent: bool = False) -> RolloutEntry | None:
        """Append the entry that `decide` makes of the last one, by compare-and-swap, and settle `stable`.

        `decide` is called again when somebody else was faster; None from it means nothing to do. An `urgent`
        one, which takes weight from a canary, works on a full disk.

        Raises: Conflict: another rollout is open, this one has ended, or its versions are not as it says;
        whatever `decide` raises.
        """
        if not urgent:
            return settlement.append(self.catalogue, adapter, decide)
        return urgently(self.root, lambda: settlement.append(self.catalogue, adapter, decide))

    def settle_rollout(self, adapter: str) -> AliasMove | None:
        """Make the move of `stable` that a promotion or its undoing asks for; None when it was made."""
        return settlement.settle(self.catalogue, adapter)

    def put_evidence(self, rollout: str, replica: str, document: bytes) -> None:
        """Replace a replica's evidence of a rollout; watchers are not told."""
        self.catalogue.evidence.put(rollout, replica, document)

    def evidence(self, rollout: str) -> dict[str, bytes]:
        """Return the evidence of a rollout by replica."""
        return self.catalogue.evidence.read(rollout)

    def put_baseline(self, adapter: str, replica: str, document: bytes) -> None:
        """Replace a replica's rolling histograms of an adapter's `stable`; watchers are not told."""
        self.catalogue.evidence.put_baseline(adapter, replica, document)

    def baselines(self, adapter: str) -> dict[str, bytes]:
        """Return the rolling histograms of an adapter's `stable` by replica."""
        return self.catalogue.evidence.baselines(adapter)

    def append_feedback(self, adapter: str, replica: str, lines: bytes) -> None:
        """Append whole lines to a replica's feedback of today."""
        self.catalogue.evidence.append_feedback(adapter, replica, lines)

    def record_engine_death(self, replica: str, at: float, names: Sequence[str]) -> bool:
        """Record which versions (`support@3`) an engine was busy with when it died; False if it is known."""
        return self.catalogue.deaths.add(replica, at, names)

    def engine_deaths(self, name: str, since: float = 0.0) -> int:
        """Return at how many engine deaths from `since` (UNIX seconds) on a version was in flight."""
        return self.catalogue.deaths.count(name, since)

    def beat(self, heartbeat: Heartbeat) -> None:
        """Say that a replica lives and what it holds.

        Raises: Conflict: another server bears its name and lives; StorageFailed.
        """
        self.catalogue.replicas.beat(heartbeat)

    def replicas(self, now: float | None = None) -> list[tuple[Heartbeat, bool]]:
        """Return every replica's last heartbeat and whether it lives (it beat within 10 seconds)."""
        return self.catalogue.replicas.read(now)

    def replica_problems(self) -> dict[str, str]:
        """Return what is wrong with heartbeats that cannot be understood, by replica."""
        return self.catalogue.replicas.problems()

    def remove_replica(self, name: str) -> None:
        """Forget a replica that ended."""
        self.catalogue.replicas.remove(name)

    def secret(self, name: str) -> bytes:
        """Return the 32 random bytes called `name`, made by whoever asks first."""
        return shared_secret(self.root, name)
