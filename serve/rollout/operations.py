"""The table of operations of rollouts: what may be asked of them, and at which path.

Each is called with any client, as those of `registry.api.operations`. Owns no rule: what a state takes is the
state machine's decision. A new verb is one more function here, and a command that calls it.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from registry.api.operation import LocalClient, OperationTable
from registry.records import RolloutEntry
from serve.rollout import documents as doc
from serve.rollout import start as starting
from serve.rollout.alerts import Delivery, handle
from serve.rollout.decision.states import EventType
from serve.rollout.display import explain
from serve.rollout.display.status import brief, no_rollout, read_status
from serve.rollout.policy import Policy
from serve.rollout.steering import move

rollouts = OperationTable("rollouts")


@rollouts.add("GET", "/rollouts")
def list_rollouts(local: LocalClient) -> doc.RolloutList:
    """List the last rollout of every adapter that had one."""
    catalogue = local.registry.catalogue

    def last(adapter: str) -> doc.RolloutBrief | None:
        entry = local.registry.rollout(adapter)
        return None if entry is None else brief(entry)

    found, problems = catalogue.each(last, catalogue.rollouts.names())
    return doc.RolloutList(rollouts=[one for one in found.values() if one is not None], problems=problems)


@rollouts.add("GET", "/rollouts/{name}")
def show_rollout(local: LocalClient, name: str) -> doc.RolloutStatus:
    """Show the adapter's last rollout: where it stands, both arms, verdicts, what is missing."""
    return read_status(local.registry, name, time.time())


@rollouts.add("GET", "/rollouts/{name}/explain")
def explain_rollout(local: LocalClient, name: str) -> doc.ExplainDocument:
    """Tell every decision of the adapter's last rollout, with its numbers."""
    log = _log(local, name)
    return explain.explained(log, log[-1].rollout)


@rollouts.add("GET", "/rollouts/{name}/history")
def show_rollout_history(local: LocalClient, name: str) -> doc.RolloutHistory:
    """Tell every decision of all rollouts of the adapter."""
    return explain.history(name, _log(local, name))


@rollouts.add("POST", "/rollouts/{name}", status=201)
def start_rollout(local: LocalClient, name: str, body: doc.StartRequest) -> doc.StartedDocument:
    """Begin a rollout of a version; an open one of the same adapter ends as superseded."""
    begun = starting.start(local.registry, _order(local, name, body), time.time)
    for before, after in begun.changes:
        local.notify(before, after)
    return doc.StartedDocument(
        superseded=begun.superseded,
        warnings=list(begun.warnings),
        status=read_status(local.registry, name, time.time()),
    )


@rollouts.add("POST", "/rollouts/{name}/plan", changes=False)
def plan_rollout(local: LocalClient, name: str, body: doc.StartRequest) -> doc.PlanDocument:
    """Say what a start would do; changes nothing."""
    return starting.plan(local.registry, _order(local, name, body), time.time())


@rollouts.add("POST", "/rollouts/{name}/pause")
def pause_rollout(local: LocalClient, name: str, body: doc.WhyRequest | None = None) -> doc.RolloutStatus:
    """Freeze the canary's weight; alarms stay armed."""
    return _moved(local, name, EventType.PAUSE, body)


@rollouts.add("POST", "/rollouts/{name}/resume")
def resume_rollout(local: LocalClient, name: str, body: doc.WhyRequest | None = None) -> doc.RolloutStatus:
    """Resume a paused rollout."""
    return _moved(local, name, EventType.RESUME, body)


@rollouts.add("POST", "/rollouts/{name}/promote")
def promote_rollout(local: LocalClient, name: str, body: doc.WhyRequest | None = None) -> doc.RolloutStatus:
    """Make the canary stable now, whatever the evidence says."""
    return _moved(local, name, EventType.PROMOTE, body)


@rollouts.add("POST", "/rollouts/{name}/abort")
def abort_rollout(local: LocalClient, name: str, body: doc.WhyRequest | None = None) -> doc.RolloutStatus:
    """Send all traffic to stable, at once and for good."""
    return _moved(local, name, EventType.ABORT, body)


@rollouts.add("POST", "/alertmanager")
def receive_alerts(local: LocalClient, body: Delivery) -> doc.AlertsDocument:
    """Take a delivery of Alertmanager's webhook: alerts that fire abort or pause their adapter's rollout."""
    return handle(local, body)


def _moved(
    local: LocalClient, name: str, occasion: EventType, body: doc.WhyRequest | None
) -> doc.RolloutStatus:
    move(local, name, occasion, "" if body is None else body.why)
    return read_status(local.registry, name, time.time())


def _log(local: LocalClient, name: str) -> Sequence[RolloutEntry]:
    log = local.registry.rollout_log(name)
    if not log:
        raise no_rollout(local.registry, name)
    return log


def _order(local: LocalClient, name: str, body: doc.StartRequest) -> starting.RolloutRequest:
    from serve.rollout.presets import load_preset

    policy = body.policy if isinstance(body.policy, Policy) else load_preset(body.policy)
    return starting.RolloutRequest(name, body.version, policy, local.who, body.note, body.force)
