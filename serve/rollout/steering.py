"""A person's events, and those of an alert: pause, resume, promote, abort.

Owns no rule of the state machine: an event that a state does not take is the refusal of
`serve.rollout.decision.machine`. Invariant: what gives no weight to a canary works on a full disk, and an
abort works whatever the log's last entry holds.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from registry.errors import CorruptStore
from registry.names import check_adapter_name
from serve.rollout.decision.states import Event, EventType
from serve.rollout.display.status import no_rollout
from serve.rollout.policy import Policy, RampStep, policy_of
from serve.rollout.recording.evidence import baseline_of

if TYPE_CHECKING:
    from registry.api.operation import LocalClient
    from registry.records import RolloutEntry

_DONE = {
    EventType.PAUSE: "paused",
    EventType.RESUME: "resumed",
    EventType.PROMOTE: "promoted",
    EventType.ABORT: "aborted",
}


def move(
    local: LocalClient, adapter: str, occasion: EventType, why: str = "", reason: str = ""
) -> RolloutEntry:
    """Append an event of a person's and return the new entry; `reason` is one word for labels.

    Raises: NotFound: there was never a rollout; Conflict: its state does not take the event.
    """
    from serve.rollout.decision.machine import transition

    sentence = f"{local.who} {_DONE[occasion]} it" + (f": {why}" if why else "")
    event = Event(occasion, local.who, reason or occasion.value, sentence)
    change: list[tuple[RolloutEntry, RolloutEntry]] = []

    def decide(last: RolloutEntry | None) -> RolloutEntry:
        if last is None:
            raise no_rollout(local.registry, adapter)
        policy, known = _known(last, occasion)
        after = transition(known, event, policy, time.time())
        change[:] = [(last, after)]
        return after

    urgent = occasion in {EventType.ABORT, EventType.PAUSE}
    local.registry.append_rollout(check_adapter_name(adapter), decide, urgent=urgent)
    before, after = change[0]
    local.notify(before, after)
    return after


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
