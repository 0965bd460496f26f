"""One try at a prepared run: where it writes, where it goes on, who watches, how it may end early."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from train.loop.watching import Observer, OptimiserStep


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try: `folder` is for what is written meanwhile, `checkpoints` for what it could go on from.

    `resumed` are the steps after which it went on, the last of them `resume_from`. `stopping` tells whether
    somebody asked it to stop. After `save_seconds` without a checkpoint one is written, beside those of the
    settings; None: never.
    """

    folder: Path
    checkpoints: Path
    resume_from: int | None = None
    resumed: tuple[int, ...] = ()
    observers: tuple[Observer, ...] = ()
    stopping: Callable[[], bool] = lambda: False
    save_seconds: float | None = None


class Stopped(KeyboardInterrupt):
    """A run that was asked to stop, did so after a step, and left a checkpoint of it."""

    def __init__(self, step: int, total: int) -> None:
        self.step = step
        self.total = total
        super().__init__(f"stopped at step {step} of {total}")


@dataclass(frozen=True, slots=True)
class Probe:
    """What a few steps showed, of which nothing is kept."""

    steps: tuple[OptimiserStep, ...]
    peak_memory_bytes: int
    device: str
