"""Which arm answers: a pure function of salt, adapter and unit, the same on every replica.

Owns the hash, the unit of a request, and the choice of an arm. No clock, no disk, no state.
Invariants: raising a weight never moves a unit from canary back to stable; weight 0 sends nobody and
weight 10000 sends everybody to the canary. The canary takes the low end of the hash, the observed base
model the high end, so neither weight moves the other's units. Vectors: tests/serve/assignment_vectors.json.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from hashlib import blake2b

import msgspec

from registry.entries.rollouts import FULL_WEIGHT

_SPACE = 1 << 64
_DIGEST = re.compile(r"[0-9a-f]{16}")


class Arm(StrEnum):
    """Who a request was for: a rollout's two arms, an explicit reference, the base, or a copy."""

    STABLE = "stable"
    CANARY = "canary"
    SHADOW = "shadow"
    DIRECT = "direct"
    BASE = "base"

    @property
    def letter(self) -> str:
        """Return the arm's letter in a response id."""
        return _LETTERS[self]


_LETTERS = {Arm.STABLE: "s", Arm.CANARY: "c", Arm.SHADOW: "h", Arm.DIRECT: "x", Arm.BASE: "b"}


@dataclass(frozen=True, slots=True)
class RolloutSplit:
    """An open rollout as assignment sees it: `salt` is the rollout's id, weights are basis points.

    `weight` of the units meet the canary, `base_weight` the bare base model (the other end of the hash);
    units in `allow` always meet the canary, those in `deny` never (and deny wins), and neither enters the
    evidence. Both hold units as they are hashed: a session's or user's own name, a conversation's digest.
    """

    salt: str
    weight: int
    base_weight: int = 0
    allow: frozenset[str] = frozenset()
    deny: frozenset[str] = frozenset()


def place(salt: str, adapter: str, unit: str) -> int:
    """Return the unit's place in 0 … 2^64 - 1: the first 8 bytes of blake2b, big-endian."""
    text = f"{salt}|{adapter}|{unit}".encode()
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "big")


def is_canary(salt: str, adapter: str, unit: str, weight: int) -> bool:
    """Return True when the unit's place lies below `weight` of the whole (basis points, exact)."""
    return place(salt, adapter, unit) * FULL_WEIGHT < weight * _SPACE


def is_mirrored(salt: str, adapter: str, unit: str, share: int) -> bool:
    """Return True when the unit is one of the `share` (basis points) whose requests are shadowed.

    A place of its own: who is mirrored says nothing of who will meet the canary.
    """
    return is_canary(f"{salt}|shadow", adapter, unit, share)


def choose_arm(split: RolloutSplit | None, adapter: str, unit: str) -> Arm:
    """Return the arm of a request for the bare adapter; without an open rollout it is stable."""
    if split is None or unit in split.deny:
        return Arm.STABLE
    if unit in split.allow:
        return Arm.CANARY
    here = place(split.salt, adapter, unit) * FULL_WEIGHT
    if here < split.weight * _SPACE:
        return Arm.CANARY
    if split.base_weight and here >= (FULL_WEIGHT - split.base_weight) * _SPACE:
        return Arm.BASE
    return Arm.STABLE


def is_listed(split: RolloutSplit, unit: str) -> bool:
    """Return True when a list and not the hash decides the unit's arm: no evidence."""
    return unit in split.allow or unit in split.deny


def unit_digest(unit: str) -> str:
    """Return the 16 hex digits by which evidence and response ids know a unit.

    A unit that is such a digest already (a conversation's) is its own.
    """
    if _DIGEST.fullmatch(unit):
        return unit
    return blake2b(unit.encode(), digest_size=8).hexdigest()


def user_unit(fields: Mapping[str, msgspec.Raw]) -> str | None:
    """Return the body's `user` where it names one, or None."""
    raw = fields.get("user")
    if raw is None:
        return None
    try:
        return msgspec.json.decode(raw, type=str) or None
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None  # the server will refuse it, in its own words


class _Turn(msgspec.Struct):
    role: str = ""
    content: object = None


_TURNS = msgspec.json.Decoder(list[_Turn])
_ENCODER = msgspec.json.Encoder(order="sorted")


def conversation_unit(fields: Mapping[str, msgspec.Raw]) -> str | None:
    """Return the unit that a request's body names by its beginning, or None: the request itself.

    Chat: the digest of all messages up to and including the first user message, each as
    `[role, content]` in canonical JSON (UTF-8, keys sorted, no spaces). Completions: of the prompt.
    Responses: of the input likewise; a string is the first user message, so the turns that follow it, sent
    whole or by `previous_response_id`, have the same unit.
    """
    for name in ("messages", "prompt", "input"):
        if (raw := fields.get(name)) is not None:
            break
    else:
        return None
    try:
        canonical = _first_turns(raw) if name == "messages" else _prompt(raw, turn=name == "input")
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None  # the server will refuse it, in its own words
    return blake2b(canonical, digest_size=8).hexdigest()


def _first_turns(raw: msgspec.Raw) -> bytes:
    turns: list[list[object]] = []
    for turn in _TURNS.decode(raw):
        turns.append([turn.role, turn.content])
        if turn.role == "user":
            break
    return _ENCODER.encode(turns)


def _prompt(raw: msgspec.Raw, *, turn: bool) -> bytes:
    value = msgspec.json.decode(raw)
    if turn and isinstance(value, str):
        return _ENCODER.encode([["user", value]])
    if isinstance(value, list) and value and isinstance(value[0], dict) and "role" in value[0]:
        return _first_turns(raw)
    return _ENCODER.encode(value)
