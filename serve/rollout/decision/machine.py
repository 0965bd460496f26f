"""The state machine of a rollout: what an event makes of a record, and nothing else.

A total, pure function: no clock, no disk. An occasion that a state does not take is an `IllegalMove`. An
entry is *suspended* while its canary is under suspicion: held or paused, with no weight and no mirroring.
Invariants: the weight is 0, the present step's, or everything; a step is never gone back; only `clear`
gives a suspended canary its weight back; every open state can be ended, and an ended one takes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from registry.entries.rollouts import FULL_WEIGHT
from registry.errors import Conflict
from registry.records import RolloutEntry, Version
from serve.rollout.decision.states import Event, EventType, RolloutState
from serve.rollout.policy import Policy
from serve.rollout.recording.evidence import Baseline

SUSPECT = "suspect"
SUSPICIOUS = "suspicious"
DISPUTED = "disputed"
PRELOAD = "preload"

_PEOPLES = (EventType.PAUSE, EventType.RESUME, EventType.PROMOTE, EventType.ABORT)


class IllegalMove(Conflict):
    """A step that the rollout's state does not allow, such as to resume one that is not paused."""

    code = "illegal_move"


def begin(
    adapter: str,
    canary: Version,
    stable: Version | None,
    policy: Policy,
    *,
    who: str,
    now: float,
    seq: int,
    rollout_id: str,
    baseline: Baseline,
    forced: bool = False,
) -> RolloutEntry:
    """Return the first entry of a rollout; without `stable` the base model is the control.

    Raises: Conflict: the canary is stable already.
    """
    if stable is not None and stable.number == canary.number:
        raise Conflict(canary.name, "is the stable version already", "name another version", param="version")
    return RolloutEntry(
        adapter=adapter,
        rollout=rollout_id,
        seq=seq,
        state=RolloutState.PRELOADING.value,
        event=EventType.START.value,
        who=who,
        at=now,
        began=now,
        state_since=now,
        step_since=now,
        stable=stable.number if stable else 0,
        canary=canary.number,
        stable_digest=stable.digest if stable else "",
        canary_digest=canary.digest,
        weight=0,
        base_weight=0,
        shadow=0,
        held_weight=0,
        step=-1,
        resumes="",
        reason=EventType.START.value,
        sentence=f"{who} started {canary.name} against {stable.name if stable else 'the base model'}",
        forced=forced,
        policy=policy.model_dump(mode="json"),
        baseline=baseline.model_dump(mode="json"),
        facts={},
    )


def transition(entry: RolloutEntry, event: Event, policy: Policy, now: float) -> RolloutEntry:
    """Return the entry that `event` makes of `entry`; `now` is UNIX seconds.

    A clock that is behind the last entry's counts as that entry's. The time that an entry was paused or
    suspended moves `step_since` on, so it never counts as dwell; `state_since` is also when a suspicion
    began.

    Raises: IllegalMove: names the state and the occasion.
    """
    at = max(now, entry.at)
    place = legal_place(entry, event.occasion, policy)
    if place is None:
        raise _illegal(entry, event.occasion, policy)
    facts = dict(event.facts)
    baseline = entry.baseline
    if event.occasion is EventType.BASELINE:
        found = facts.pop("baseline", None)
        if not isinstance(found, dict):
            raise ValueError("a baseline event holds the new baseline in its facts")
        baseline = found
    begins = place.state != entry.state or event.occasion is EventType.SUSPECT
    return replace(
        entry,
        seq=entry.seq + 1,
        state=place.state.value,
        event=event.occasion.value,
        who=event.who,
        at=at,
        state_since=at if begins else entry.state_since,
        step_since=_step_since(entry, place.step, at),
        weight=place.weight,
        base_weight=policy.observe_base if 0 < place.weight < FULL_WEIGHT else 0,
        shadow=place.shadow,
        held_weight=place.held_weight,
        step=place.step,
        resumes=place.resumes,
        reason=place.reason or event.reason or event.occasion.value,
        sentence=event.sentence,
        baseline=baseline,
        facts=facts,
    )


@dataclass(frozen=True, slots=True)
class Transition:
    """Where an event leads: the fields of an entry that an occasion decides; `reason` '' is the event's."""

    state: RolloutState
    step: int
    weight: int = 0
    shadow: int = 0
    held_weight: int = 0
    resumes: str = ""
    reason: str = ""


def legal_place(entry: RolloutEntry, occasion: EventType, policy: Policy) -> Transition | None:
    """Return where `occasion` leads from `entry`, None when its state does not take it."""
    rule = _TABLE[RolloutState(entry.state)].get(occasion)
    return rule(entry, policy) if rule else None


def is_suspended(entry: RolloutEntry) -> bool:
    """Return True while the canary is under suspicion: held or paused without weight or mirroring."""
    if entry.state == RolloutState.PAUSED:
        return entry.resumes == RolloutState.HOLD
    return entry.state == RolloutState.HOLD and not entry.weight and not entry.shadow


def denied_until(log: Sequence[RolloutEntry], canary_digest: str) -> float:
    """Return until when (UNIX seconds) a content is refused since its last rollout was rolled back, or 0.

    An abort counts like an alarm, as somebody saw a reason for it; being superseded or withdrawn, or waiting
    in vain for replicas, does not, as nothing was found against the version. A later promotion that was
    closed clears it. The time is `deny_seconds` of the policy that it was rolled back under.
    """
    ended = _last_end(log, canary_digest)
    if ended is None or ended.state != RolloutState.ROLLED_BACK:
        return 0.0
    seconds = ended.policy.get("deny_seconds")
    return ended.at + (seconds if isinstance(seconds, int | float) else 0.0)


def denied(log: Sequence[RolloutEntry], canary: Version, now: float) -> Conflict | None:
    """Return the refusal of a version that was rolled back lately, None when it may start."""
    until = denied_until(log, canary.digest)
    ended = _last_end(log, canary.digest)
    if ended is None or now >= until:
        return None
    fact = f"was rolled back {_span(now - ended.at)} ago ({ended.reason}: {ended.sentence.rstrip('.')})"
    remedy = f"register a better one, wait {_span(until - now)}, or force it with --force"
    return Conflict(canary.name, fact, remedy, param="version")


def _last_end(log: Sequence[RolloutEntry], digest: str) -> RolloutEntry | None:
    ends = (entry for entry in reversed(log) if entry.canary_digest == digest and not entry.open)
    return next((entry for entry in ends if not _is_blameless(entry)), None)


def _is_blameless(entry: RolloutEntry) -> bool:
    in_vain = entry.event == EventType.TIMEOUT and entry.reason == PRELOAD
    return in_vain or entry.event == EventType.SUPERSEDE


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{max(0.0, seconds):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"


def _illegal(entry: RolloutEntry, occasion: EventType, policy: Policy) -> IllegalMove:
    subject = f"{entry.adapter}@{entry.canary}"
    fact = f"its rollout is {entry.state} and takes no {occasion.value}"
    verbs = [verb.value for verb in _PEOPLES if legal_place(entry, verb, policy)]
    remedy = f"possible now: {', '.join(verbs)}" if verbs else "start a new rollout"
    return IllegalMove(subject, fact, remedy, param="event")


def _step_since(entry: RolloutEntry, step: int, at: float) -> float:
    if step != entry.step:
        return at
    idle = entry.state == RolloutState.PAUSED or is_suspended(entry)
    return entry.step_since + (at - entry.at if idle else 0.0)


def _origin(entry: RolloutEntry) -> RolloutState:
    """Return the moving state that a held entry came from; it follows from its step and weight."""
    if FULL_WEIGHT in {entry.weight, entry.held_weight}:
        return RolloutState.PROMOTED
    return RolloutState.RAMPING if entry.step >= 0 else RolloutState.SHADOW


def _same(entry: RolloutEntry, _: Policy) -> Transition:
    return Transition(
        RolloutState(entry.state),
        entry.step,
        entry.weight,
        entry.shadow,
        entry.held_weight,
        entry.resumes,
        reason=entry.reason,  # what held it is what holds it still
    )


def _load(entry: RolloutEntry, policy: Policy) -> Transition | None:
    if policy.shadow is not None:
        return Transition(RolloutState.SHADOW, entry.step, shadow=policy.shadow.share)
    return _ramp(entry, policy)


def _ramp(entry: RolloutEntry, policy: Policy) -> Transition | None:
    step = entry.step + 1
    if step >= len(policy.steps):
        return None  # beyond the last step there is only the promotion
    return Transition(RolloutState.RAMPING, step, policy.steps[step].weight)


def _hold(entry: RolloutEntry, _: Policy) -> Transition:
    return Transition(RolloutState.HOLD, entry.step, entry.weight, entry.shadow, resumes=entry.state)


def _suspend(entry: RolloutEntry, _: Policy) -> Transition | None:
    if not entry.weight and not entry.shadow:
        return None  # nobody meets the canary
    paused = entry.state == RolloutState.PAUSED
    state, resumes = (
        (RolloutState.PAUSED, RolloutState.HOLD) if paused else (RolloutState.HOLD, _origin(entry))
    )
    return Transition(state, entry.step, held_weight=entry.weight, resumes=resumes.value, reason=SUSPECT)


def _clear(entry: RolloutEntry, policy: Policy) -> Transition | None:
    if not is_suspended(entry):
        paused = entry.state == RolloutState.PAUSED
        return (
            None
            if paused
            else Transition(RolloutState(entry.resumes), entry.step, entry.weight, entry.shadow)
        )
    origin = _origin(entry)
    shadow = policy.shadow.share if policy.shadow and origin is RolloutState.SHADOW else 0
    if entry.state == RolloutState.PAUSED:
        return Transition(RolloutState.PAUSED, entry.step, entry.held_weight, shadow, resumes=origin.value)
    return Transition(origin, entry.step, entry.held_weight, shadow)


def _pause(entry: RolloutEntry, _: Policy) -> Transition:
    # A hold that is not a suspicion looks at the evidence anew when it is resumed.
    held = entry.state == RolloutState.HOLD and not is_suspended(entry)
    resumes = entry.resumes if held else entry.state
    return Transition(RolloutState.PAUSED, entry.step, entry.weight, entry.shadow, entry.held_weight, resumes)


def _resume(entry: RolloutEntry, _: Policy) -> Transition:
    if is_suspended(entry):
        origin = _origin(entry).value
        return Transition(RolloutState.HOLD, entry.step, 0, 0, entry.held_weight, origin, reason=SUSPECT)
    return Transition(RolloutState(entry.resumes), entry.step, entry.weight, entry.shadow)


def _promote(entry: RolloutEntry, _: Policy) -> Transition | None:
    # Before the first step no replica need hold the canary, and no user has met it.
    return Transition(RolloutState.PROMOTED, entry.step, FULL_WEIGHT) if entry.step >= 0 else None


def _roll_back(entry: RolloutEntry, _: Policy) -> Transition:
    return Transition(RolloutState.ROLLED_BACK, entry.step)


def _give_up(entry: RolloutEntry, _: Policy) -> Transition:
    return Transition(RolloutState.ROLLED_BACK, entry.step, reason=PRELOAD)


def _time_out(entry: RolloutEntry, policy: Policy) -> Transition:
    harm = is_suspended(entry) or entry.reason in {SUSPECT, SUSPICIOUS}
    if harm and policy.hold_action == "rollback":
        return _roll_back(entry, policy)
    return _pause(entry, policy)


def _close(entry: RolloutEntry, _: Policy) -> Transition:
    return Transition(RolloutState.CLOSED, entry.step)


_Rule = Callable[[RolloutEntry, Policy], Transition | None]
_ENDS: dict[EventType, _Rule] = {
    EventType.ROLL_BACK: _roll_back,
    EventType.ABORT: _roll_back,
    EventType.SUPERSEDE: _roll_back,
}
_LIVE: dict[EventType, _Rule] = {**_ENDS, EventType.BASELINE: _same, EventType.PAUSE: _pause}
_TABLE: Mapping[RolloutState, Mapping[EventType, _Rule]] = MappingProxyType(
    {
        RolloutState.PRELOADING: {**_LIVE, EventType.LOADED: _load, EventType.TIMEOUT: _give_up},
        RolloutState.SHADOW: {
            **_LIVE,
            EventType.SHADOWED: _ramp,
            EventType.HOLD: _hold,
            EventType.SUSPECT: _suspend,
        },
        RolloutState.RAMPING: {
            **_LIVE,
            EventType.ADVANCE: _ramp,
            EventType.HOLD: _hold,
            EventType.SUSPECT: _suspend,
            EventType.PROMOTE: _promote,
        },
        RolloutState.HOLD: {
            **_LIVE,
            EventType.SUSPECT: _suspend,
            EventType.CLEAR: _clear,
            EventType.PROMOTE: _promote,
            EventType.TIMEOUT: _time_out,
        },
        RolloutState.PAUSED: {
            **_ENDS,
            EventType.BASELINE: _same,
            EventType.SUSPECT: _suspend,
            EventType.CLEAR: _clear,
            EventType.RESUME: _resume,
            EventType.PROMOTE: _promote,
        },
        RolloutState.PROMOTED: {
            **_ENDS,
            EventType.SUSPECT: _suspend,
            EventType.PAUSE: _pause,
            EventType.COOLED: _close,
        },
        RolloutState.ROLLED_BACK: {},
        RolloutState.CLOSED: {},
    }
)
