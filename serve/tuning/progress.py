"""How far a job's training is: the lines that the trainer writes, read for the API.

Reads `jobs/<id>/metrics.jsonl` and `status.json`, which the trainer owns; both may be missing, half written
or of a later release, and then less is told. Invariant: nothing here raises but `StorageFailed`.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from registry.errors import CorruptStore, Missing
from registry.storage import disk

RECENT_BYTES = 16 * 1024
"""So much of the end of the trainer's lines holds the last steps, by which the pace goes."""

_METRICS, _STATUS = "metrics.jsonl", "status.json"
_ACCURACY = "mean_token_accuracy"


@dataclass(frozen=True, slots=True)
class StepLine:
    """One step of the training, or one evaluation; `number` is its line's, `at` its time where it is told."""

    number: int
    step: int
    at: float | None
    seconds: float
    train_loss: float | None
    train_accuracy: float | None
    valid_loss: float | None

    @property
    def is_evaluation(self) -> bool:
        """Return whether it tells of held-out rows alone."""
        return self.train_loss is None


@dataclass(frozen=True, slots=True)
class JobProgress:
    """Everything that the trainer told of a job so far."""

    lines: tuple[StepLine, ...]
    total_steps: int | None

    def at_step(self, step: int) -> dict[str, float]:
        """Return OpenAI's figures of a checkpoint: of its step, and of the last evaluation until then."""
        found: dict[str, float] = {"step": step}
        for line in self.lines:
            if line.step <= step:
                found |= figures(
                    line, {"train_loss", "train_mean_token_accuracy"} if line.step == step else set()
                )
        return found

    def seconds_left(self) -> float | None:
        """Return how long the rest takes at the pace of the last steps, None where that is not known."""
        steps = [line for line in self.lines if not line.is_evaluation]
        if not steps or not self.total_steps:
            return None
        last = steps[-20:]
        pace = sum(line.seconds for line in last) / len(last)
        return max(0, self.total_steps - steps[-1].step) * pace


def read_progress(folder: Path) -> JobProgress:
    """Read what the trainer told of the job in `folder`.

    Raises: StorageFailed.
    """
    return JobProgress(tuple(_lines(folder / _METRICS)), _total(folder / _STATUS))


def read_recent(folder: Path) -> JobProgress:
    """Read the last of what the trainer told, as fast after a million steps as after ten.

    Raises: StorageFailed.
    """
    return JobProgress(tuple(_lines(folder / _METRICS, RECENT_BYTES)), _total(folder / _STATUS))


def figures(line: StepLine, wanted: set[str] | None = None) -> dict[str, float]:
    """Return a line's figures by OpenAI's names; of those of the training only the `wanted`."""
    training = {"train_loss": line.train_loss, "train_mean_token_accuracy": line.train_accuracy}
    told = {key: value for key, value in training.items() if wanted is None or key in wanted}
    told |= {"valid_loss": line.valid_loss, "full_valid_loss": line.valid_loss}
    return {key: value for key, value in told.items() if value is not None}


def _lines(path: Path, last_bytes: int | None = None) -> Iterator[StepLine]:
    for number, found in enumerate(_documents(path, last_bytes)):
        step = found.get("step")
        if isinstance(step, int):
            yield StepLine(
                number=number,
                step=step,
                at=_number(found.get("at")),
                seconds=_number(found.get("seconds")) or 0.0,
                train_loss=_number(found.get("loss")),
                train_accuracy=_number(found.get(_ACCURACY)),
                valid_loss=_number(found.get("eval_loss")),
            )


def _documents(path: Path, last_bytes: int | None) -> Iterator[Mapping[str, Any]]:
    try:
        data = disk.read(path) if last_bytes is None else _end(path, last_bytes)
    except (Missing, CorruptStore):
        return
    for line in data.splitlines():
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            continue  # the last one, half written, or the first of an end
        if isinstance(value, dict):
            yield value


def _end(path: Path, last_bytes: int) -> bytes:
    with disk.explained(path), disk.open_plain(path) as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - last_bytes))
        return file.read()


def _total(path: Path) -> int | None:
    steps = next((found.get("steps") for found in _whole(path)), None)
    return steps if isinstance(steps, int) else None


def _whole(path: Path) -> Sequence[Mapping[str, Any]]:
    try:
        value = json.loads(disk.read(path))
    except (Missing, CorruptStore, ValueError, RecursionError):
        return ()
    return (value,) if isinstance(value, dict) else ()


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return value
