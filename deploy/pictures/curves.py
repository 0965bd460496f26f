"""The losses of one training run, from the `metrics.jsonl` of its job."""

from __future__ import annotations

import json
from pathlib import Path

from deploy.recipes.picture import CurveLine, chart


def draw_losses(metrics: Path) -> str:
    """Return training and held-out loss over the steps, as SVG."""
    rows = [json.loads(line) for line in metrics.read_text().splitlines()]
    trained = [(row["step"], row["loss"]) for row in rows if "loss" in row]
    held_out = [(row["step"], row["eval_loss"]) for row in rows if "eval_loss" in row]
    lines = [CurveLine("loss of each step", _points(trained)), CurveLine("held-out loss", _points(held_out))]
    return chart("losses of a training run", "step", lines, top=12)


def _points(pairs: list[tuple[int, float]]) -> list[tuple[float, float, float, float]]:
    return [(step, loss, loss, loss) for step, loss in pairs]
