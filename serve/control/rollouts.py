"""Routes about rollouts: start, watch, steer, explain; and alerts that take one back.

Scopes: every route here, as all of the admin API, asks for a key with the scope `admin`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, TypeVar

from fastapi import APIRouter, Body, Depends

from serve.control.caller import Caller, CallerOf, caller_of
from serve.control.errors import REFUSALS
from serve.control.routes import Name
from serve.rollout import documents as doc
from serve.rollout.alerts import Delivery, handle
from serve.rollout.desk import LocalRollouts

_Answer = TypeVar("_Answer")

rollouts = APIRouter(
    prefix="/rollouts", tags=["rollouts"], responses=REFUSALS, dependencies=[Depends(caller_of)]
)
alerts = APIRouter(tags=["rollouts"], responses=REFUSALS, dependencies=[Depends(caller_of)])


Why = Annotated[doc.WhyRequest | None, Body()]


@rollouts.get("")
async def list_rollouts(caller: CallerOf) -> doc.RolloutList:
    """List the last rollout of every adapter that had one."""
    return await _read(caller, lambda desk: desk.list())


@rollouts.get("/{name}")
async def show_rollout(name: Name, caller: CallerOf) -> doc.RolloutStatus:
    """Show the adapter's last rollout: where it stands, both arms, verdicts, what is missing."""
    return await _read(caller, lambda desk: desk.status(name))


@rollouts.get("/{name}/explain")
async def explain_rollout(name: Name, caller: CallerOf) -> doc.ExplainDocument:
    """Tell every decision of the adapter's last rollout, with its numbers."""
    return await _read(caller, lambda desk: desk.explain(name))


@rollouts.get("/{name}/history")
async def show_rollout_history(name: Name, caller: CallerOf) -> doc.RolloutHistory:
    """Tell every decision of all rollouts of the adapter."""
    return await _read(caller, lambda desk: desk.history(name))


@rollouts.post("/{name}", status_code=201)
async def start_rollout(name: Name, body: doc.StartRequest, caller: CallerOf) -> doc.StartedDocument:
    """Begin a rollout of a version; an open one of the same adapter ends as superseded."""
    return await _write(caller, lambda desk: desk.start(name, body))


@rollouts.post("/{name}/plan")
async def plan_rollout(name: Name, body: doc.StartRequest, caller: CallerOf) -> doc.PlanDocument:
    """Say what a start would do; changes nothing."""
    return await _read(caller, lambda desk: desk.plan(name, body))


@rollouts.post("/{name}/pause")
async def pause_rollout(name: Name, caller: CallerOf, body: Why = None) -> doc.RolloutStatus:
    """Freeze the canary's weight; alarms stay armed."""
    return await _write(caller, lambda desk: desk.pause(name, _why(body)))


@rollouts.post("/{name}/resume")
async def resume_rollout(name: Name, caller: CallerOf, body: Why = None) -> doc.RolloutStatus:
    """Resume a paused rollout."""
    return await _write(caller, lambda desk: desk.resume(name, _why(body)))


@rollouts.post("/{name}/promote")
async def promote_rollout(name: Name, caller: CallerOf, body: Why = None) -> doc.RolloutStatus:
    """Make the canary stable now, whatever the evidence says."""
    return await _write(caller, lambda desk: desk.promote(name, _why(body)))


@rollouts.post("/{name}/abort")
async def abort_rollout(name: Name, caller: CallerOf, body: Why = None) -> doc.RolloutStatus:
    """Send all traffic to stable, at once and for good."""
    return await _write(caller, lambda desk: desk.abort(name, _why(body)))


@alerts.post("/alertmanager")
async def receive_alerts(body: Delivery, caller: CallerOf) -> doc.AlertsDocument:
    """Take a delivery of Alertmanager's webhook: alerts that fire abort or pause their adapter's rollout."""
    return await _write(caller, lambda desk: handle(desk, body))


async def _read(caller: Caller, ask: Callable[[LocalRollouts], _Answer]) -> _Answer:
    return await caller.control.run(lambda: ask(_desk(caller)))


async def _write(caller: Caller, change: Callable[[LocalRollouts], _Answer]) -> _Answer:
    return await caller.apply(lambda: change(_desk(caller)))


def _desk(caller: Caller) -> LocalRollouts:
    return LocalRollouts(caller.control.registry, who=caller.who, notify=caller.control.state.notifier.notify)


def _why(body: doc.WhyRequest | None) -> str:
    return "" if body is None else body.why
