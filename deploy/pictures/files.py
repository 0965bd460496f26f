"""All pictures of the documentation, the folder that holds them, and what they are drawn from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from deploy.pictures import curves, lanes, lives
from deploy.reference.pages import write_changed

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "pictures"
RUN = FOLDER / "diagnoses.metrics.jsonl"
"""`metrics.jsonl` of the training run that docs/how-to/train.md shows, as the run left it."""

PICTURES: dict[str, Callable[[], str]] = {
    "version.svg": lives.draw_version,
    "states.svg": lives.draw_states,
    "rollouts.svg": lanes.draw_drills,
    "loss.svg": lambda: curves.draw_losses(RUN),
}


def write_pictures(folder: Path = FOLDER) -> list[str]:
    """Write every picture and return the names of those that changed."""
    return write_changed(folder, PICTURES)
