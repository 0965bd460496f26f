"""The table of operations of the registry: what may be asked of a wardrobe, and at which path.

Each is called with any client: `operations.rollback(client, "support")`. A `LocalClient` runs it on the root,
an `HttpClient` lets a server do so; so both give the same answers by construction. Owns no rule: what is
allowed is the store's decision. A new operation is one more function here, and a command that calls it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from pydantic import Field

from registry.api import documents as doc
from registry.api.operation import LocalClient, OperationTable
from registry.api.overview import survey
from registry.changes.publish import PublishRequest
from registry.errors import UsageError
from registry.names import STABLE, check_adapter_name
from registry.records import AliasMove, GcReport
from registry.views.history import AuditWish

Progress = Callable[[int], None]
"""Is told of bytes as they are sent."""

adapters = OperationTable("adapters")
whole = OperationTable("operations")


@adapters.add("GET", "/adapters")
def list_adapters(local: LocalClient) -> doc.AdapterList:
    """List every adapter in brief, from memory."""
    return doc.AdapterList(adapters=local.registry.summaries())


@adapters.add("GET", "/adapters/{name}")
def show_adapter(local: LocalClient, name: str) -> doc.AdapterDocument:
    """Show one adapter with its live versions."""
    view = local.registry.adapter_view(name)
    quarantined = sorted(view.quarantined.items())
    return doc.AdapterDocument(
        adapter=name,
        stable=view.aliases.get(STABLE),
        aliases=dict(sorted(view.aliases.items())),
        versions=[
            doc.VersionDocument.of(version, view.aliases, view.quarantined.get(number))
            for number, version in sorted(view.versions.items())
        ],
        unreadable={number: reason for number, reason in quarantined if number not in view.versions},
    )


@adapters.add("GET", "/adapters/{name}/history")
def show_history(local: LocalClient, name: str) -> doc.HistoryDocument:
    """Show every move of the adapter's aliases, oldest first."""
    return doc.HistoryDocument(adapter=name, moves=local.registry.history(name))


@adapters.add("GET", "/adapters/{name}/versions")
def list_versions(local: LocalClient, name: str) -> doc.AdapterDocument:
    """Show one adapter with its live versions (the same as without `/versions`)."""
    return show_adapter(local, name)


@adapters.add("POST", "/adapters/{name}/versions", status=201)
def register(local: LocalClient, request: PublishRequest, advance: Progress) -> doc.PublishedDocument:  # noqa: ARG001  nothing is sent here
    """Publish the files of a PEFT LoRA folder as the adapter's next version."""
    check_adapter_name(request.adapter)
    published = local.registry.register(replace(request, who=local.who))
    return doc.PublishedDocument.of(published)


@adapters.add("GET", "/adapters/{name}/versions/{number}")
def show_version(local: LocalClient, name: str, number: int) -> doc.VersionDetail:
    """Show one version with its files and attestations."""
    registry = local.registry
    version = registry.version(name, number)
    known, broken = registry.catalogue.attestations.survey(name, number)
    return doc.VersionDetail(
        **dict(doc.VersionDocument.of(version, registry.aliases(name), registry.quarantined(name, number))),
        files=list(version.files),
        attestations=known,
        problems=[str(error) for error in broken],
        base_named=version.base_named,
    )


@adapters.add("GET", "/adapters/{name}/versions/{number}/files/{file}")
def export(
    local: LocalClient, name: str, number: int, target: Path, base: str | None = None
) -> doc.ExportDocument:
    """Write a version's files into the new folder `target`; its config calls the base `base` if given."""
    version = local.registry.version(name, number)
    named = local.registry.export(name, number, target, base=base)
    return doc.ExportDocument(
        adapter=name, version=number, digest=version.digest, path=str(target), base=named
    )


@adapters.add("DELETE", "/adapters/{name}/versions/{number}")
def delete_version(local: LocalClient, name: str, number: int) -> doc.DeletedDocument:
    """Put a tombstone on a version; refused while an alias or an open rollout uses it."""
    local.registry.delete(name, number, who=local.who)
    return doc.DeletedDocument(adapter=name, version=number)


@adapters.add("PUT", "/adapters/{name}/aliases/{alias}")
def set_alias(local: LocalClient, name: str, alias: str, body: doc.MoveRequest) -> AliasMove:
    """Point an alias to a version; each server follows when it has it loaded."""
    return local.registry.set_alias(name, alias, body.version, who=local.who, force=body.force)


@adapters.add("DELETE", "/adapters/{name}/aliases/{alias}")
def remove_alias(local: LocalClient, name: str, alias: str) -> AliasMove:
    """Remove an alias, at once; its history stays.

    Without `stable` the bare name is answered with 404 until a version is promoted; every version is still
    served by its number. `stable` is not removed while a rollout is open.
    """
    return local.registry.remove_alias(name, alias, who=local.who)


@adapters.add("POST", "/adapters/{name}/promote")
def promote(local: LocalClient, name: str, body: doc.MoveRequest) -> AliasMove:
    """Make a version the stable one; each server follows when it has it loaded."""
    return local.registry.promote(name, body.version, who=local.who, force=body.force)


@adapters.add("POST", "/adapters/{name}/rollback")
def rollback(local: LocalClient, name: str) -> AliasMove:
    """Undo the last forward move of `stable`; each server follows when it has the version loaded."""
    return local.registry.rollback(name, who=local.who)


@whole.add("GET", "/status")
def show_status(local: LocalClient) -> doc.StatusDocument:
    """Show the whole at a glance."""
    return survey(local.registry)


@whole.add("GET", "/replicas")
def list_replicas(local: LocalClient) -> doc.ReplicaList:
    """List every server process by its last heartbeat."""
    found = [doc.ReplicaDocument.of(beat, live=live) for beat, live in local.registry.replicas()]
    return doc.ReplicaList(replicas=found)


@whole.add("GET", "/drain")
def show_drain(local: LocalClient) -> doc.DrainDocument:
    """Say whether this replica is draining."""
    raise _no_replica(local)


@whole.add("POST", "/drain")
def drain(local: LocalClient, body: doc.DrainRequest | None = None) -> doc.DrainDocument:  # noqa: ARG001
    """Let this replica refuse new work and finish what it has (or, with `draining` false, resume)."""
    raise _no_replica(local)


@whole.add("GET", "/audit")
def show_audit(local: LocalClient, since: Annotated[float | None, Field(ge=0)] = None) -> doc.AuditList:
    """Show who changed what, from `since` (UNIX seconds) on."""
    return doc.AuditList(entries=local.registry.audit(since))


@whole.add("GET", "/audit/newest")
def show_newest_changes(
    local: LocalClient,
    before: Annotated[float | None, Field(ge=0, description="UNIX seconds, excluded.")] = None,
    adapter: Annotated[str | None, Field(description="Of this adapter only.")] = None,
    who: Annotated[str, Field(description="Of this person, key or server only.")] = "",
    action: Annotated[str, Field(description="Of this kind only, such as `alias`.")] = "",
    limit: Annotated[int, Field(ge=1, le=500)] = 50,
) -> doc.NewestChanges:
    """Show the last changes, newest first, without reading all that there ever were."""
    wish = AuditWish(before, None if adapter is None else check_adapter_name(adapter), who, action)
    entries, reached = local.registry.newest_changes(wish, limit)
    return doc.NewestChanges(entries=entries, reached=reached)


@whole.add("POST", "/verify")
def verify(local: LocalClient, body: doc.VerifyRequest | None = None) -> doc.VerifyReport:
    """Hash versions again; one that is not as published is quarantined."""
    wanted = body or doc.VerifyRequest()
    adapter = None if wanted.adapter is None else check_adapter_name(wanted.adapter)
    results = local.registry.verify(adapter, wanted.version)
    return doc.VerifyReport(ok=all(one.ok for one in results), results=results)


@whole.add("POST", "/gc")
def collect_garbage(local: LocalClient, body: doc.GcRequest | None = None) -> GcReport:
    """Move what nothing uses to the trash, or free its room `now`; without `apply`, only say so."""
    wanted = body or doc.GcRequest()
    return local.registry.gc(apply=wanted.apply, at_once=wanted.now)


def _no_replica(local: LocalClient) -> UsageError:
    return UsageError(str(local.registry.root), "is a root, and only a server drains", "ask with --url")
