"""What a run will take, from three real steps on this machine: time, memory, money.

Owns the choice of the rows that are measured and the sums. The three steps are of the longest rows (for the
memory) and of rows of median length (for the time, twice); nothing is kept of them but the figures, which lie
in `jobs/estimates/<plan>.json`, so that the run itself can tell how far off they were.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, TypeVar

from pydantic import ValidationError

from registry.api.documents import Document
from registry.errors import CorruptStore, Missing
from registry.storage import disk, files
from train.jobs.store import FOLDER
from train.runs.session import plan_of

if TYPE_CHECKING:
    from registry.store import Registry
    from train.epoch.items import TrainingItem
    from train.loop.watching import OptimiserStep
    from train.runs.run import Prepared

STEPS = 3
_ESTIMATES = "estimates"
_Kind = TypeVar("_Kind", bound="TrainingItem")


class Estimate(Document):
    """What a run will take on this machine; `cost` is hours times the price that was given.

    `tokens` are of all steps, prompts included. `seconds` leaves out loading, evaluations and checkpoints.
    `measured_seconds` are the three steps': longest rows, median rows, median rows.
    """

    steps: int
    rows: int
    tokens: int
    seconds: float
    tokens_per_second: float
    peak_memory_bytes: int
    device: str
    cost: float | None
    measured_seconds: list[float]


@dataclass(frozen=True, slots=True)
class Probe:
    """What the three steps showed."""

    steps: tuple[OptimiserStep, ...]
    peak_memory_bytes: int
    device: str


def estimate(prepared: Prepared, registry: Registry, price_per_hour: float | None = None) -> Estimate:
    """Measure three steps and return what the whole run will take; the figures are kept for the run.

    Raises: WardrobeError: the longest rows do not fit into memory.
    """
    from train.loop.trainer import TrainingTask, probe_task

    config = prepared.config
    batch = config.training.batch_size * config.training.accumulation
    rows = chosen(prepared.items, batch)
    short = config.training.model_copy(update={"steps": STEPS, "grouping": "length"})
    task = TrainingTask(
        config.model_copy(update={"training": short}), prepared.base.path, rows, (), prepared.start
    )
    with tempfile.TemporaryDirectory(prefix="wardrobe-estimate-") as folder:
        probe = probe_task(task, Path(folder))
    found = sums(prepared, probe, price_per_hour)
    path = _path(registry.root, plan_of(config, prepared.base, prepared.sources(), prepared.parent).digest)
    files.make_directory(path.parent)
    files.replace(path, found.model_dump_json(indent=2).encode())
    return found


def sums(prepared: Prepared, probe: Probe, price_per_hour: float | None) -> Estimate:
    """Return the whole run's figures from those of the three steps."""
    steps = prepared.duration.steps
    usual = probe.steps[1:] or probe.steps
    step_seconds = median(step.seconds for step in usual)
    speed = median(step.tokens_per_second for step in usual)
    seconds = steps * step_seconds
    return Estimate(
        steps=steps,
        rows=len(prepared.items),
        tokens=prepared.duration.tokens,
        seconds=round(seconds, 1),
        tokens_per_second=round(speed, 1),
        peak_memory_bytes=probe.peak_memory_bytes,
        device=probe.device,
        cost=None if price_per_hour is None else round(seconds / 3600 * price_per_hour, 4),
        measured_seconds=[round(step.seconds, 3) for step in probe.steps],
    )


def chosen(items: Sequence[_Kind], batch: int) -> list[_Kind]:
    """Return the rows of three steps: the `batch` longest, and twice as many around the median length."""
    ordered = sorted(items, key=lambda item: -item.length)
    middle = max(0, len(ordered) // 2 - batch)
    usual = ordered[middle : middle + 2 * batch]
    while len(usual) < 2 * batch:
        usual += usual
    return [*ordered[:batch], *usual[: 2 * batch]]


def earlier_estimate(root: Path, plan_sha256: str) -> Estimate | None:
    """Return what was estimated for a plan, if it ever was."""
    try:
        return Estimate.model_validate_json(disk.read(_path(root, plan_sha256)))
    except (Missing, CorruptStore, ValidationError):
        return None


def _path(root: Path, plan_sha256: str) -> Path:
    return root / FOLDER / _ESTIMATES / f"{plan_sha256}.json"
