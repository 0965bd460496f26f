"""Two rollouts on a real server, as `make drills` recorded them: one promoted, one taken back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from deploy.pictures.boxes import COLOURS, DIM, label, svg
from serve.rollout.decision.states import RolloutState

RECORD = Path(__file__).resolve().parents[2] / "bench-results" / "drill-rollouts.json"
DRILLS = MappingProxyType(
    {"good": "a good version", "feedback": "a version that users rate 0.2 where stable has 0.9"}
)
"""The drills that are drawn, and what they were."""

_WIDTH, _LEFT, _RIGHT, _LANE = 880, 20, 20, 34
_COLOURS = MappingProxyType(
    {
        RolloutState.PRELOADING: "plain",
        RolloutState.RAMPING: "indigo",
        RolloutState.HOLD: "amber",
        RolloutState.PROMOTED: "green",
        RolloutState.CLOSED: "green",
        RolloutState.ROLLED_BACK: "red",
    }
)


def draw_drills(record: Path = RECORD) -> str:
    """Return both rollouts over the same seconds: each state with the canary's share, and every reason."""
    drills = json.loads(record.read_text())
    most = 1.05 * max(drills[name]["changes"][-1]["after"] for name in DRILLS)
    parts, top = [], 30
    for name, about in DRILLS.items():
        parts.append(label(_LEFT, top, about, anchor="start", more=' font-weight="bold"'))
        parts += _lane(drills[name]["changes"], top + 10, most)
        top += 10 + _LANE + 20
        for change in drills[name]["changes"]:
            parts.append(label(_LEFT, top, _told(change), anchor="start", colour=DIM, more=' font-size="12"'))
            top += 18
        top += 26
    return svg("two rollouts on a real server", _WIDTH, top - 20, "\n".join(["", *parts, ""]))


def _lane(changes: Sequence[Mapping[str, Any]], top: int, most: float) -> list[str]:
    begun = [change["after"] for change in changes]
    parts = []
    for change, begin, end in zip(changes, begun, [*begun[1:], most], strict=True):
        fill, border = COLOURS[_COLOURS[RolloutState(change["row"]["state"])]]
        left, right = (_LEFT + at / most * (_WIDTH - _LEFT - _RIGHT) for at in (begin, end))
        parts.append(
            f'<rect x="{left:.1f}" y="{top}" width="{right - left:.1f}" height="{_LANE}" fill="{fill}" '
            f'stroke="{border}"/>'
        )
        words = _share(change["row"])
        if right - left > 7 * len(words):
            parts.append(label((left + right) / 2, top + 21, words))
    return parts


def _told(change: Mapping[str, Any]) -> str:
    return f"{change['after']:.1f} s   {_share(change['row'])}: {change['sentence'].partition('; about')[0]}"


def _share(row: Mapping[str, Any]) -> str:
    """Return the state, with the canary's share while there is a canary."""
    state = RolloutState(row["state"])
    return f"{state.value} {row['weight'] / 100:g} %" if state.open else state.value
