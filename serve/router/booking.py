"""Who was assigned what, and what becomes of it in the evidence.

`assign` chooses the arm of a request under an open rollout; a `Booking` goes with it to the end of its
answer. Invariants: an outcome is booked once, at the end, under the arm and the segment that were assigned,
whoever answered; a unit that a list decided is booked nowhere.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial

from msgspec import Raw

from serve.rollout.recorder import OpenSegment, Recorder, Text
from serve.router.answers import read_text
from serve.router.assignment import (
    Arm,
    choose_arm,
    conversation_unit,
    is_listed,
    is_mirrored,
    unit_digest,
    user_unit,
)
from serve.router.paths import Dialect
from serve.router.streams import Outcome, read_finish
from serve.router.targets import OpenRollout, Target

NO_UNIT = "0" * 16
"""The unit of a request that has none."""


class Booking:
    """One assigned request, until its answer has ended.

    `mirrored` says that a copy of it goes to the canary once stable has answered; `wants_text` that the
    form of its answer will be looked at.
    """

    __slots__ = ("_first_turn", "_segment", "arm", "mirrored", "recorder", "unit", "wants_text")

    def __init__(self, recorder: Recorder, arm: Arm, unit: str, *, first_turn: bool) -> None:
        self.recorder = recorder
        self.arm = arm
        self.unit = unit
        self.mirrored = False
        self.wants_text = recorder.wants_text
        self._first_turn = first_turn
        self._segment: OpenSegment = recorder.segment

    def close(
        self,
        outcome: Outcome,
        *,
        rescued: bool,
        first_token: float | None,
        per_token: float | None,
        output_tokens: int,
        tail: bytes,
        text: Text,
    ) -> None:
        """Book how the request ended; `rescued` says that the control was asked to answer it."""
        self.recorder.observe(
            self._segment,
            self.arm,
            self.unit,
            outcome.value,
            first_turn=self._first_turn,
            rescued=rescued,
            first_token=first_token,
            per_token=per_token,
            output_tokens=output_tokens,
            finish=read_finish(tail),
            text=text,
        )


def assign(
    rollout: OpenRollout, adapter: str, session: bytes | None, fields: Mapping[str, Raw], body: bytes
) -> tuple[Target, str, Booking | None]:
    """Return the target of a request, its unit's digest, and its booking.

    `session` is the header x-session-id. `fields` and `body` are the client's.
    """
    recorder = rollout.recorder
    split = recorder.split
    unit = _unit(recorder.unit, session, fields)
    arm = choose_arm(split, adapter, unit)
    target = rollout.arms[arm]
    if (split.allow or split.deny) and is_listed(split, unit):
        rollout.listed[arm].value += 1
        return target, NO_UNIT, None
    target.decided.value += 1
    digest = unit_digest(unit)
    booking = Booking(recorder, arm, digest, first_turn=_is_first_turn(fields, body))
    share = recorder.entry.shadow
    if share and arm is Arm.STABLE:
        booking.mirrored = is_mirrored(split.salt, adapter, unit, share)
    return target, digest, booking


def late_text(kept: list[bytes] | None, dialect: Dialect, *, streamed: bool) -> Text:
    """Return what takes the text out of an answer's bytes later, None where they were not kept."""
    return partial(read_text, kept, dialect, streamed=streamed) if kept else None


def _unit(kind: str, session: bytes | None, fields: Mapping[str, Raw]) -> str:
    """Return the unit: the request itself where nothing else names one."""
    unit: str | None = None
    if kind == "user":
        unit = user_unit(fields)
    if unit is None and kind != "request":
        unit = session.decode("utf-8", "replace") if session else conversation_unit(fields)
    return unit if unit is not None else os.urandom(8).hex()


def _is_first_turn(fields: Mapping[str, Raw], body: bytes) -> bool:
    """Return True when nothing was answered before in this conversation, without parsing it."""
    return b'"assistant"' not in body and "previous_response_id" not in fields
