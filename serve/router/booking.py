"""Who was assigned what, and what becomes of it in the evidence.

`assign` chooses the arm of a request under an open rollout; a `Booking` goes with it to the end of its
answer. Invariants: an outcome is booked once, at the end, under the arm and the segment that were assigned,
whoever answered; a unit that a list decided is booked nowhere, nor is one that the base would have answered
and may not.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from msgspec import Raw

from serve.protocol.form import leaves_form
from serve.rollout.assignment import (
    Arm,
    choose_arm,
    conversation_unit,
    is_listed,
    is_mirrored,
    unit_digest,
    user_unit,
)
from serve.rollout.recording.counts import OpenSegment
from serve.rollout.recording.recorder import Recorder
from serve.rollout.recording.sources import NOBODY_ELSE, Source
from serve.router.targets import RolloutTarget, RoutePlan, RouteTarget

NO_UNIT = "0" * 16
"""The unit of a request that has none."""


class Booking:
    """One assigned request, until its answer has ended: what was in force when it was assigned.

    `source` is who asked. `mirrored` says that a copy of it goes to the canary once stable has answered;
    `wants_text` that the form of its answer will be looked at: only where the request leaves it to the
    version.
    """

    __slots__ = ("arm", "first_turn", "mirrored", "recorder", "segment", "source", "unit", "wants_text")

    def __init__(
        self, recorder: Recorder, arm: Arm, unit: str, source: Source, *, first_turn: bool, wants_text: bool
    ) -> None:
        self.source = source
        self.recorder = recorder
        self.segment: OpenSegment = recorder.segment
        self.arm = arm
        self.unit = unit
        self.first_turn = first_turn
        self.mirrored = False
        self.wants_text = wants_text


def assign(
    rollout: RolloutTarget,
    adapter: str,
    unit: str,
    fields: Mapping[str, Raw],
    body: bytes,
    source: Source | None = NOBODY_ELSE,
) -> tuple[RouteTarget, str, Booking | None]:
    """Return the target of a request of `unit`, its unit's digest, and its booking.

    `fields` and `body` are the client's; `source` is whose evidence it is, None of a group that gives none.
    """
    recorder = rollout.recorder
    split = recorder.split
    arm = choose_arm(split, adapter, unit)
    target = rollout.arms[arm]
    if arm is Arm.BASE and not rollout.gives_base:
        target.decided.value += 1
        return target, NO_UNIT, None
    if (split.allow or split.deny) and is_listed(split, unit):
        rollout.listed[arm].value += 1
        return target, NO_UNIT, None
    target.decided.value += 1
    digest = unit_digest(unit)
    if source is None:
        return target, digest, None
    wants_text = recorder.wants_text and leaves_form(fields)
    first_turn = _is_first_turn(fields, body)
    booking = Booking(recorder, arm, digest, source, first_turn=first_turn, wants_text=wants_text)
    share = recorder.entry.shadow
    if share and arm is Arm.STABLE:
        booking.mirrored = is_mirrored(split.salt, adapter, unit, share)
    return target, digest, booking


def find_unit(kind: str, session: bytes | None, fields: Mapping[str, Raw]) -> str:
    """Return the unit of a request: itself where nothing else names one; pure but for that.

    `kind` is the policy's; `session` the header x-session-id; `fields` are the client's.
    """
    unit: str | None = None
    if kind == "user":
        unit = user_unit(fields)
    if unit is None and kind != "request":
        unit = session.decode("utf-8", "replace") if session else conversation_unit(fields)
    return unit if unit is not None else os.urandom(8).hex()


def _is_first_turn(fields: Mapping[str, Raw], body: bytes) -> bool:
    """Return True when nothing was answered before in this conversation, without parsing it."""
    return b'"assistant"' not in body and "previous_response_id" not in fields


def choose(plan: RoutePlan, headers: Mapping[bytes, bytes]) -> tuple[RouteTarget, str]:
    """Return the target of a request outside any rollout, and the digest of its unit.

    A unit is worth its hash only where it decides or is named: explicit references have none, nor has a
    conversation while no rollout is open.
    """
    if plan.stable is None:
        assert plan.fixed is not None, "a plan has one of the three"
        plan.fixed.decided.value += 1
        return plan.fixed, NO_UNIT
    plan.stable.decided.value += 1
    session = headers.get(b"x-session-id")
    return plan.stable, NO_UNIT if session is None else unit_digest(session.decode("utf-8", "replace"))
