"""Routes about the whole: status, replicas, drain, audit, verify, garbage collection."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body, Depends, Query

from registry.api import documents as doc
from registry.names import check_adapter_name
from serve.control.caller import CallerOf, ControlOf, caller_of
from serve.control.errors import REFUSALS

operations = APIRouter(tags=["operations"], responses=REFUSALS, dependencies=[Depends(caller_of)])


@operations.get("/status")
async def show_status(caller: CallerOf) -> doc.StatusDocument:
    """Show the whole at a glance."""
    return await caller.read(lambda desk: desk.status())


@operations.get("/replicas")
async def list_replicas(caller: CallerOf) -> doc.ReplicaList:
    """List every server process by its last heartbeat."""
    return await caller.read(lambda desk: desk.replicas())


@operations.get("/drain")
async def show_drain(control: ControlOf) -> doc.DrainDocument:
    """Say whether this replica is draining."""
    return doc.DrainDocument(replica=control.state.replica, draining=control.state.draining)


@operations.post("/drain")
async def drain(
    control: ControlOf, body: Annotated[doc.DrainRequest | None, Body()] = None
) -> doc.DrainDocument:
    """Let this replica refuse new work and finish what it has (or, with `draining` false, resume)."""
    control.state.drain((body or doc.DrainRequest()).draining)
    return doc.DrainDocument(replica=control.state.replica, draining=control.state.draining)


@operations.get("/audit")
async def show_audit(caller: CallerOf, since: Annotated[float | None, Query(ge=0)] = None) -> doc.AuditList:
    """Show who changed what, from `since` (UNIX seconds) on."""
    return await caller.read(lambda desk: desk.audit(since))


@operations.post("/verify")
async def verify(
    caller: CallerOf, body: Annotated[doc.VerifyRequest | None, Body()] = None
) -> doc.VerifyReport:
    """Hash versions again; one that is not as published is quarantined."""
    wanted = body or doc.VerifyRequest()
    adapter = None if wanted.adapter is None else check_adapter_name(wanted.adapter)
    return await caller.write(lambda desk: desk.verify(adapter, wanted.version))


@operations.post("/gc")
async def collect_garbage(
    caller: CallerOf, body: Annotated[doc.GcRequest | None, Body()] = None
) -> doc.GcDocument:
    """Move what nothing uses to the trash, or free its room `now`; without `apply`, only say so."""
    wanted = body or doc.GcRequest()
    return await caller.write(lambda desk: desk.gc(apply=wanted.apply, now=wanted.now))
