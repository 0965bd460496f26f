"""Alertmanager's webhook (JSON version 4): alerts that fire take a rollout back, or freeze it.

What an alert asks for is its label `wardrobe_action` (or `action`): `abort` or `rollback` aborts,
`pause` pauses. Without one, `severity` `critical` or `page` pauses: somebody is being called, so the ramp
must not go on meanwhile, but an alert that was not written for rollouts does not decide one. The label
`adapter` says whose. Invariants: a delivery may come again and again and changes nothing more; an alert
that began to fire before the rollout says nothing about it.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field

from registry.errors import Conflict, InvalidName, NotFound
from registry.names import check_adapter_name
from registry.records import RolloutEntry
from serve.rollout.decision.metrics import ALERT
from serve.rollout.decision.states import EventType
from serve.rollout.documents import AlertActionDocument, AlertsDocument, version_name
from serve.rollout.steering import move

if TYPE_CHECKING:
    from registry.api.operation import LocalClient

MAX_ALERTS = 1_000
_ASKED = {"abort": EventType.ABORT, "rollback": EventType.ABORT, "pause": EventType.PAUSE}
_GRAVE = frozenset({"critical", "page"})
_TEXT_LIMIT = 300


class Alert(BaseModel):
    """One alert of a delivery; unknown fields are Alertmanager's own business."""

    model_config = ConfigDict(extra="ignore", populate_by_name=True)

    status: Literal["firing", "resolved"]
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    starts_at: datetime | None = Field(default=None, alias="startsAt")
    fingerprint: str = ""


class Delivery(BaseModel):
    """What Alertmanager posts."""

    model_config = ConfigDict(extra="ignore")

    version: Literal["4"]
    alerts: list[Alert] = Field(max_length=MAX_ALERTS)


def handle(local: LocalClient, delivery: Delivery) -> AlertsDocument:
    """Do what each alert asks for, and say what was done."""
    return AlertsDocument(actions=[_handle(local, alert) for alert in delivery.alerts])


def asked(alert: Alert) -> EventType | None:
    """Return what an alert asks for by its labels, None for nothing."""
    for label in ("wardrobe_action", "action"):
        if label in alert.labels:
            return _ASKED.get(alert.labels[label].lower())
    return EventType.PAUSE if alert.labels.get("severity", "").lower() in _GRAVE else None


def _handle(local: LocalClient, alert: Alert) -> AlertActionDocument:
    adapter = alert.labels.get("adapter", "")
    occasion = asked(alert)
    try:
        obstacle = _obstacle(local, alert, adapter, occasion)
        if obstacle or occasion is None:
            return _answer(alert, "ignored", obstacle)
        moved = move(local, adapter, occasion, _why(alert), reason=ALERT)
    except (NotFound, Conflict, InvalidName) as error:
        return _answer(alert, "ignored", str(error))
    canary = version_name(moved.adapter, moved.canary)
    return _answer(alert, "aborted" if occasion is EventType.ABORT else "paused", canary)


def _obstacle(local: LocalClient, alert: Alert, adapter: str, occasion: EventType | None) -> str:
    """Return why nothing is done, '' where something is."""
    if alert.status == "resolved":
        return "it is resolved"
    if not adapter:
        return "it has no label adapter"
    if occasion is None:
        return "it asks for nothing: no label wardrobe_action of abort or pause, no severity of critical"
    entry = local.registry.rollout(check_adapter_name(adapter))
    if entry is None or not entry.open:
        return "no rollout is open"
    if alert.starts_at is not None and alert.starts_at.timestamp() < entry.began:
        return "it fires since before the rollout began"
    return _idle(entry, occasion)


def _idle(entry: RolloutEntry, occasion: EventType) -> str:
    if occasion is EventType.PAUSE and entry.state in {"paused", "promoted"}:
        return f"{version_name(entry.adapter, entry.canary)} is {entry.state}: there is nothing to freeze"
    return ""


def _why(alert: Alert) -> str:
    name = alert.labels.get("alertname", "an alert")
    summary = alert.annotations.get("summary") or alert.annotations.get("description", "")
    text = f"{name} fires: {summary}" if summary else f"{name} fires"
    return text[:_TEXT_LIMIT]


def _answer(
    alert: Alert, action: Literal["aborted", "paused", "ignored"], because: str
) -> AlertActionDocument:
    return AlertActionDocument(
        alert=alert.labels.get("alertname", "") or alert.fingerprint,
        adapter=alert.labels.get("adapter", ""),
        action=action,
        because=because,
    )
