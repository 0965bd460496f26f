"""The drawn pictures of the documentation: `python -m deploy.pictures`, or all of it by `make reference`.

The life of a version and the states of a rollout are diagrams that are kept by hand.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from deploy.reference.pages import write_changed
from registry.report.pictures import picture_of
from registry.report.plots import Curve, Plot
from serve.rollout.decision.states import RolloutState

_REPOSITORY = Path(__file__).resolve().parents[1]
FOLDER = _REPOSITORY / "docs" / "pictures"
RUN = FOLDER / "diagnoses.metrics.jsonl"
"""`metrics.jsonl` of the training run that docs/how-to/train.md shows, as the run left it."""

RECORD = _REPOSITORY / "bench-results" / "drill-rollouts.json"
"""Rollouts on a real server, as `make drills` recorded them."""

DRILLS = MappingProxyType(
    {"good": "a good version", "feedback": "a version that users rate 0.2 where stable has 0.9"}
)
"""The drills that are drawn, one promoted and one taken back, and what they were."""


def draw_losses(metrics: Path = RUN) -> str:
    """Return training and held-out loss over the steps, as SVG."""
    rows = [json.loads(line) for line in metrics.read_text().splitlines()]
    curves = [
        Curve(name, [(row["step"], row[key]) for row in rows if key in row])
        for name, key in (("loss of each step", "loss"), ("held-out loss", "eval_loss"))
    ]
    return picture_of("losses of a training run", [Plot("Losses of a training run", curves, unit="by step")])


def draw_drills(record: Path = RECORD) -> str:
    """Return both rollouts over the same seconds: the canary's share, each state, and every reason."""
    drills = json.loads(record.read_text())
    most = 1.05 * max(drills[name]["changes"][-1]["after"] for name in DRILLS)
    plots = [_rollout(about, drills[name]["changes"], most) for name, about in DRILLS.items()]
    return picture_of("two rollouts on a real server", plots)


def _rollout(about: str, changes: Sequence[Mapping[str, Any]], most: float) -> Plot:
    shares = [(one["after"], one["row"]["weight"] / 100 if _is_open(one) else 0.0) for one in changes]
    promoted = [(one["after"], 100.0) for one in changes if one["row"]["state"] in {"promoted", "closed"}]
    return Plot(
        about,
        [Curve("share", sorted({**dict(shares), **dict(promoted)}.items()), "area")],
        cuts=[(one["after"], str(one["row"]["state"])) for one in changes],
        unit="% of the requests over seconds",
        across=(0.0, most),
        up=(0.0, 105.0),
        remarks=[_told(one) for one in changes],
    )


def _told(change: Mapping[str, Any]) -> str:
    row = change["row"]
    share = f" {row['weight'] / 100:g} %" if _is_open(change) else ""
    return f"{change['after']:.1f} s   {row['state']}{share}: {change['sentence'].partition('; about')[0]}"


def _is_open(change: Mapping[str, Any]) -> bool:
    return RolloutState(change["row"]["state"]).open


PICTURES: dict[str, Callable[[], str]] = {"rollouts.svg": draw_drills, "loss.svg": draw_losses}


def write_pictures(folder: Path = FOLDER) -> list[str]:
    """Write every picture and return the names of those that changed."""
    return write_changed(folder, PICTURES)


if __name__ == "__main__":
    print(f"{FOLDER.name}: {len(PICTURES)} pictures, changed: {', '.join(write_pictures()) or 'none'}")
