"""The desk of rollouts: what the command line and the admin API ask, answered in documents.

`LocalRollouts` answers from the root, `RemoteRollouts` over HTTP from a server that holds a
`LocalRollouts`; so both give the same answers by construction. Owns no rule of the state machine: an
event that a state does not take is `serve.rollout.decision.machine`'s refusal.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from registry.errors import CorruptStore
from registry.names import check_adapter_name
from registry.records import RolloutEntry
from serve.rollout import documents as doc
from serve.rollout.decision.policy import Policy, RampStep, policy_of
from serve.rollout.decision.states import Event, EventType
from serve.rollout.display import explain
from serve.rollout.display.status import brief, no_rollout, read_status
from serve.rollout.recording.evidence import baseline_of
from serve.rollout.start import RolloutRequest, plan, start

if TYPE_CHECKING:
    from registry.api.client import HttpClient
    from registry.store import Registry

Notify = Callable[[RolloutEntry | None, RolloutEntry], None]
_DONE = {
    EventType.PAUSE: "paused",
    EventType.RESUME: "resumed",
    EventType.PROMOTE: "promoted",
    EventType.ABORT: "aborted",
}


class RolloutDesk(Protocol):
    """Everything that may be asked of rollouts; every refusal is a `WardrobeError`."""

    def list(self) -> doc.RolloutList:
        """Return the last rollout of every adapter that had one."""
        ...

    def status(self, adapter: str) -> doc.RolloutStatus:
        """Return everything about an adapter's last rollout."""
        ...

    def plan(self, adapter: str, request: doc.StartRequest) -> doc.PlanDocument:
        """Return what a start would do; changes nothing."""
        ...

    def start(self, adapter: str, request: doc.StartRequest) -> doc.StartedDocument:
        """Begin a rollout."""
        ...

    def pause(self, adapter: str, why: str = "") -> doc.RolloutStatus:
        """Freeze the weight; alarms stay armed."""
        ...

    def resume(self, adapter: str, why: str = "") -> doc.RolloutStatus:
        """Resume a paused rollout."""
        ...

    def promote(self, adapter: str, why: str = "") -> doc.RolloutStatus:
        """Make the canary stable now, whatever the evidence says."""
        ...

    def abort(self, adapter: str, why: str = "") -> doc.RolloutStatus:
        """Send all traffic to stable, at once and for good."""
        ...

    def explain(self, adapter: str) -> doc.ExplainDocument:
        """Return every decision of the last rollout."""
        ...

    def history(self, adapter: str) -> doc.RolloutHistory:
        """Return every decision of every rollout."""
        ...


class LocalRollouts:
    """The desk on the root itself; `who` signs every change.

    `notify` is told of every change that this desk made, after it was made; it must not block.
    """

    def __init__(
        self,
        registry: Registry,
        *,
        who: str,
        clock: Callable[[], float] = time.time,
        notify: Notify | None = None,
    ) -> None:
        self._registry = registry
        self._who = who
        self._clock = clock
        self._notify = notify

    def list(self) -> doc.RolloutList:
        """Return the last rollout of every adapter that had one."""
        catalogue = self._registry.catalogue
        found, problems = catalogue.each(self._brief, catalogue.rollouts.names())
        return doc.RolloutList(rollouts=[one for one in found.values() if one is not None], problems=problems)

    def status(self, adapter: str) -> doc.RolloutStatus:
        """Return everything about an adapter's last rollout."""
        return read_status(self._registry, check_adapter_name(adapter), self._clock())

    def plan(self, adapter: str, request: doc.StartRequest) -> doc.PlanDocument:
        """Return what a start would do; changes nothing."""
        return plan(self._registry, self._order(adapter, request), self._clock())

    def start(self, adapter: str, request: doc.StartRequest) -> doc.StartedDocument:
        """Begin a rollout; one of the same adapter that is open ends as superseded."""
        begun = start(self._registry, self._order(adapter, request), self._clock)
        for before, after in begun.changes:
            self._tell(before, after)
        return doc.StartedDocument(
            superseded=begun.superseded, warnings=list(begun.warnings), status=self.status(adapter)
        )

    def pause(self, adapter: str, why: str = "") -> doc.RolloutStatus:
        """Freeze the weight; alarms stay armed."""
        return self.move(adapter, EventType.PAUSE, why)

    def resume(self, adapter: str, why: str = "") -> doc.RolloutStatus:
        """Resume a paused rollout."""
        return self.move(adapter, EventType.RESUME, why)

    def promote(self, adapter: str, why: str = "") -> doc.RolloutStatus:
        """Make the canary stable now, whatever the evidence says."""
        return self.move(adapter, EventType.PROMOTE, why)

    def abort(self, adapter: str, why: str = "") -> doc.RolloutStatus:
        """Send all traffic to stable, at once and for good."""
        return self.move(adapter, EventType.ABORT, why)

    def move(self, adapter: str, occasion: EventType, why: str, reason: str = "") -> doc.RolloutStatus:
        """Append a person's event; `reason` is one word for labels, default the event's own.

        Raises: NotFound: there was never a rollout; Conflict: its state does not take the event.
        """
        from serve.rollout.decision.machine import transition

        sentence = f"{self._who} {_DONE[occasion]} it" + (f": {why}" if why else "")
        event = Event(occasion, self._who, reason or occasion.value, sentence)
        change: list[tuple[RolloutEntry, RolloutEntry]] = []

        def decide(last: RolloutEntry | None) -> RolloutEntry:
            if last is None:
                raise no_rollout(adapter)
            policy, known = _known(last, occasion)
            after = transition(known, event, policy, self._clock())
            change[:] = [(last, after)]
            return after

        # What gives no weight to a canary must work on a full disk.
        urgent = occasion in {EventType.ABORT, EventType.PAUSE}
        self._registry.append_rollout(check_adapter_name(adapter), decide, urgent=urgent)
        for before, after in change:
            self._tell(before, after)
        return self.status(adapter)

    def explain(self, adapter: str) -> doc.ExplainDocument:
        """Return every decision of the last rollout."""
        log = self._log(adapter)
        return explain.explained(log, log[-1].rollout)

    def history(self, adapter: str) -> doc.RolloutHistory:
        """Return every decision of every rollout."""
        return explain.history(adapter, self._log(adapter))

    def last(self, adapter: str) -> RolloutEntry | None:
        """Return the last entry of the adapter's log, None where there was never a rollout."""
        return self._registry.rollout(check_adapter_name(adapter))

    def _brief(self, adapter: str) -> doc.RolloutBrief | None:
        entry = self._registry.rollout(adapter)
        return None if entry is None else brief(entry)

    def _log(self, adapter: str) -> Sequence[RolloutEntry]:
        log = self._registry.rollout_log(check_adapter_name(adapter))
        if not log:
            raise no_rollout(adapter)
        return log

    def _order(self, adapter: str, request: doc.StartRequest) -> RolloutRequest:
        from serve.rollout.presets import load_preset

        policy = request.policy if isinstance(request.policy, Policy) else load_preset(request.policy)
        return RolloutRequest(
            check_adapter_name(adapter), request.version, policy, self._who, request.note, request.force
        )

    def _tell(self, before: RolloutEntry | None, after: RolloutEntry) -> None:
        if self._notify is not None:
            self._notify(before, after)


class RemoteRollouts:
    """The desk over HTTP."""

    def __init__(self, client: HttpClient) -> None:
        self._client = client

    def list(self) -> doc.RolloutList:
        """Return the last rollout of every adapter that had one."""
        return self._client.ask(doc.RolloutList, "GET", "/rollouts")

    def status(self, adapter: str) -> doc.RolloutStatus:
        """Return everything about an adapter's last rollout."""
        return self._client.ask(doc.RolloutStatus, "GET", _path(adapter))

    def plan(self, adapter: str, request: doc.StartRequest) -> doc.PlanDocument:
        """Return what a start would do; changes nothing."""
        return self._client.ask(doc.PlanDocument, "POST", _path(adapter, "plan"), request)

    def start(self, adapter: str, request: doc.StartRequest) -> doc.StartedDocument:
        """Begin a rollout; one of the same adapter that is open ends as superseded."""
        return self._client.ask(doc.StartedDocument, "POST", _path(adapter), request)

    def pause(self, adapter: str, why: str = "") -> doc.RolloutStatus:
        """Freeze the weight; alarms stay armed."""
        return self._move(adapter, "pause", why)

    def resume(self, adapter: str, why: str = "") -> doc.RolloutStatus:
        """Resume a paused rollout."""
        return self._move(adapter, "resume", why)

    def promote(self, adapter: str, why: str = "") -> doc.RolloutStatus:
        """Make the canary stable now, whatever the evidence says."""
        return self._move(adapter, "promote", why)

    def abort(self, adapter: str, why: str = "") -> doc.RolloutStatus:
        """Send all traffic to stable, at once and for good."""
        return self._move(adapter, "abort", why)

    def explain(self, adapter: str) -> doc.ExplainDocument:
        """Return every decision of the last rollout."""
        return self._client.ask(doc.ExplainDocument, "GET", _path(adapter, "explain"))

    def history(self, adapter: str) -> doc.RolloutHistory:
        """Return every decision of every rollout."""
        return self._client.ask(doc.RolloutHistory, "GET", _path(adapter, "history"))

    def _move(self, adapter: str, verb: str, why: str) -> doc.RolloutStatus:
        return self._client.ask(doc.RolloutStatus, "POST", _path(adapter, verb), doc.WhyRequest(why=why))


def _known(entry: RolloutEntry, occasion: EventType) -> tuple[Policy, RolloutEntry]:
    """Return the policy of a rollout and its entry; an abort works whatever stands there, and replaces it."""
    try:
        policy = policy_of(entry)
        baseline_of(entry)
    except CorruptStore:
        if occasion is not EventType.ABORT:
            raise
        plain = Policy(steps=(RampStep(weight=1, min_units=0, min_seconds=0.0),))
        return plain, replace(
            entry, policy=plain.model_dump(mode="json"), baseline={}, step=min(entry.step, 0)
        )
    return policy, entry


def _path(adapter: str, *parts: str) -> str:
    return "/".join(("/rollouts", check_adapter_name(adapter), *parts))
