"""What a run will take, from three real steps on this machine: time, memory, money.

Owns the choice of the rows that are measured and the sums. The three steps are of the longest rows (for the
memory) and of rows of median length (for the time, twice); nothing is kept of them but the figures, which lie
in `jobs/estimates/<plan>.json`, so that the run itself can tell how far off they were.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, TypeVar

from train.epoch.items import TrainingItem
from train.jobs.estimates import Estimate, keep_estimate
from train.loop.attempt import Probe
from train.loop.trainer import probe
from train.prepared import PreparedRun

if TYPE_CHECKING:
    from registry.store import Registry

STEPS = 3
_Kind = TypeVar("_Kind", bound=TrainingItem)


def estimate(run: PreparedRun, registry: Registry, price_per_hour: float | None = None) -> Estimate:
    """Measure three steps and return what the whole run will take; the figures are kept for the run.

    Raises: WardrobeError: the longest rows do not fit into memory.
    """
    training = run.config.training
    rows = chosen(run.items, training.batch_size * training.accumulation)
    short = training.model_copy(update={"steps": STEPS, "grouping": "length"})
    probed = replace(
        run.with_rows(rows),
        config=run.config.model_copy(update={"training": short}),
        duration=replace(run.duration, steps=STEPS),
    )
    with tempfile.TemporaryDirectory(prefix="wardrobe-estimate-") as folder:
        found = sums(run, probe(probed, Path(folder)), price_per_hour)
    keep_estimate(registry.root, run.plan(run.sources()).digest, found)
    return found


def sums(run: PreparedRun, showed: Probe, price_per_hour: float | None) -> Estimate:
    """Return the whole run's figures from those of the three steps."""
    steps = run.duration.steps
    usual = showed.steps[1:] or showed.steps
    step_seconds = median(step.seconds for step in usual)
    speed = median(step.tokens_per_second for step in usual)
    seconds = steps * step_seconds
    return Estimate(
        steps=steps,
        rows=len(run.items),
        tokens=run.duration.tokens,
        seconds=round(seconds, 1),
        tokens_per_second=round(speed, 1),
        peak_memory_bytes=showed.peak_memory_bytes,
        device=showed.device,
        cost=None if price_per_hour is None else round(seconds / 3600 * price_per_hour, 4),
        measured_seconds=[round(step.seconds, 3) for step in showed.steps],
    )


def chosen(items: Sequence[_Kind], batch: int) -> list[_Kind]:
    """Return the rows of three steps: the `batch` longest, and twice as many around the median length."""
    ordered = sorted(items, key=lambda item: -item.length)
    middle = max(0, len(ordered) // 2 - batch)
    usual = ordered[middle : middle + 2 * batch]
    while len(usual) < 2 * batch:
        usual += usual
    return [*ordered[:batch], *usual[: 2 * batch]]
