"""What was estimated of a plan before it ran: `<root>/jobs/estimates/<plan>.json`."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from registry.api.documents import Document
from registry.errors import CorruptStore, Missing
from registry.storage import disk, files
from train.jobs.store import FOLDER

_ESTIMATES = "estimates"


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


def keep_estimate(root: Path, plan_sha256: str, estimate: Estimate) -> None:
    """Keep the newest estimate of a plan.

    Raises: StorageFailed.
    """
    path = _path(root, plan_sha256)
    files.make_directory(path.parent)
    files.replace(path, estimate.model_dump_json(indent=2).encode())


def earlier_estimate(root: Path, plan_sha256: str) -> Estimate | None:
    """Return what was estimated for a plan, if it ever was."""
    try:
        return Estimate.model_validate_json(disk.read(_path(root, plan_sha256)))
    except (Missing, CorruptStore, ValidationError):
        return None


def _path(root: Path, plan_sha256: str) -> Path:
    return root / FOLDER / _ESTIMATES / f"{plan_sha256}.json"
