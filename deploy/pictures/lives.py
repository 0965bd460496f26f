"""The life of a version, and the states of a rollout; the states' names are those of the code."""

from __future__ import annotations

from types import MappingProxyType

from deploy.pictures.boxes import Arrow, Box, diagram
from serve.rollout.decision.states import EventType, RolloutState

PLACES = MappingProxyType(
    {
        RolloutState.PRELOADING: (20, 50, "plain"),
        RolloutState.SHADOW: (200, 50, "indigo"),
        RolloutState.RAMPING: (380, 50, "indigo"),
        RolloutState.PROMOTED: (560, 50, "green"),
        RolloutState.CLOSED: (740, 50, "green"),
        RolloutState.HOLD: (380, 140, "amber"),
        RolloutState.PAUSED: (560, 140, "amber"),
        RolloutState.ROLLED_BACK: (380, 240, "red"),
    }
)
"""Corner and colour of every state."""

_WIDTH, _HEIGHT = 120, 44


def draw_version() -> str:
    """Return the life of a version, from a folder to the trash."""
    boxes = [
        Box(20, 40, 150, 76, ("a LoRA folder", "trained or brought"), "plain"),
        Box(230, 40, 150, 76, ("support@3", "immutable", "named by its digest"), "green"),
        Box(440, 40, 150, 76, ("resident", "verified, loaded", "and proved"), "indigo"),
        Box(650, 40, 150, 76, ("stable", "a bare “support”", "means this one"), "indigo"),
        Box(20, 190, 150, 76, ("refused", "nothing is left", "behind"), "red"),
        Box(230, 190, 150, 76, ("deleted", "the number is never", "used again"), "plain"),
        Box(440, 190, 150, 76, ("quarantined", "never served, with", "the reason"), "red"),
    ]
    arrows = [
        Arrow(((170, 78), (228, 78)), "register", (199, 68)),
        Arrow(((380, 78), (438, 78)), "asked for", (409, 68)),
        Arrow(((590, 68), (648, 68)), "promote", (620, 58)),
        Arrow(((650, 92), (592, 92)), "rollback", (620, 110)),
        Arrow(((95, 116), (95, 188)), "a check fails", (140, 156)),
        Arrow(((305, 116), (305, 188)), "delete", (330, 156)),
        Arrow(((515, 116), (515, 188)), "changed files, engine deaths", (600, 156)),
    ]
    return diagram("the life of a version", (820, 290), boxes, arrows)


def draw_states() -> str:
    """Return the eight states of a rollout and what leads from one to the next."""
    boxes = [Box(x, y, _WIDTH, _HEIGHT, (state.value,), colour) for state, (x, y, colour) in PLACES.items()]
    arrows = [
        _across(RolloutState.PRELOADING, EventType.LOADED),
        _across(RolloutState.SHADOW, EventType.SHADOWED),
        _across(RolloutState.RAMPING, EventType.PROMOTE),
        _across(RolloutState.PROMOTED, EventType.COOLED),
        Arrow(
            ((80, 50), (80, 26), (420, 26), (420, 48)), "loaded, where the policy has no shadow", (250, 20)
        ),
        Arrow(((460, 50), (460, 26), (490, 26), (490, 48)), EventType.ADVANCE.value, (524, 32)),
        Arrow(
            ((440, 96), (440, 138)),
            f"{EventType.HOLD.value}, {EventType.SUSPECT.value} / clear",
            (370, 122),
            both=True,
        ),
        Arrow(((558, 162), (502, 162)), "", both=True),
        Arrow(
            ((440, 184), (440, 238)), "from every open state: an alarm, an abort, a newer start", (604, 216)
        ),
    ]
    arrows.append(
        Arrow(
            ((620, 138), (620, 96)),
            f"{EventType.PAUSE.value} / {EventType.RESUME.value}",
            (676, 122),
            both=True,
        )
    )
    return diagram("the states of a rollout", (880, 300), boxes, arrows)


def _across(state: RolloutState, occasion: EventType) -> Arrow:
    x, y, _ = PLACES[state]
    right, middle = x + _WIDTH, y + _HEIGHT // 2
    return Arrow(((right, middle), (right + 58, middle)), occasion.value, (right + 29, middle - 8))
