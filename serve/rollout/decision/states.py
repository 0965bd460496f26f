"""The words of a rollout: its eight states and the events that move it.

Values only. What an event does in a state is `serve.rollout.decision.machine`'s; who proposes one is
`serve.rollout.decision.proposal`'s or a person's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

from pydantic import JsonValue


class RolloutState(StrEnum):
    """Where a rollout stands; the same eight words in logs, answers and metrics."""

    PRELOADING = "preloading"
    SHADOW = "shadow"
    RAMPING = "ramping"
    HOLD = "hold"
    PAUSED = "paused"
    PROMOTED = "promoted"
    ROLLED_BACK = "rolled_back"
    CLOSED = "closed"

    @property
    def open(self) -> bool:
        """Return True while the rollout's log alone decides `stable`."""
        return self not in {RolloutState.ROLLED_BACK, RolloutState.CLOSED}


class EventType(StrEnum):
    """What can happen to a rollout.

    `start` makes one. `loaded`: every live replica holds both versions, proved. `shadowed`: enough pairs
    without harm. `advance`: a step's units and time are there, without harm. `hold`: evidence is missing or
    odd (weight stays). `suspect`: both arms degraded, or an engine died (weight 0 at once). `clear`: what
    held it is gone. `baseline`: thresholds are frozen, nothing else changes. `guard`: a metric's alarm, a
    failed preload, or stable recovering without the canary. `timeout`: of a hold. `cooled`: the cool-down is
    over. `pause`, `resume`, `promote`, `abort`, `supersede` are a person's; `promote` is also the
    certificate's.
    """

    START = "start"
    BASELINE = "baseline"
    LOADED = "loaded"
    SHADOWED = "shadowed"
    ADVANCE = "advance"
    HOLD = "hold"
    SUSPECT = "suspect"
    CLEAR = "clear"
    PAUSE = "pause"
    RESUME = "resume"
    PROMOTE = "promote"
    ROLL_BACK = "guard"
    ABORT = "abort"
    SUPERSEDE = "supersede"
    TIMEOUT = "timeout"
    COOLED = "cooled"


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened: `reason` is one word for labels, `sentence` is for people.

    `facts` are the counts, e-values and limits that the decision stands on; for `baseline` they hold the
    new `baseline` document. `who` is a person's name, or `replica NAME` for the platform's own.
    """

    occasion: EventType
    who: str
    reason: str = ""
    sentence: str = ""
    facts: Mapping[str, JsonValue] = field(default_factory=lambda: MappingProxyType({}))
