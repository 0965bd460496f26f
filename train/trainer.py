"""One training run: items and a base model in, a folder with what was trained out.

Owns the order of the torch part: seed, model, trainer, steps, checks, files. Invariant: the same config,
data, base and machine give the same bytes.
"""

from __future__ import annotations

import contextlib
import math
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from logging import ERROR, getLogger
from pathlib import Path
from typing import Any

from registry.errors import WardrobeError
from train.arguments import common_arguments
from train.config import TrainConfig
from train.items import Item
from train.methods import Workshop, method_of
from train.modelling import load_tokenizer, make_model
from train.watching import Progress, TrainingResult, Watch, callback

__all__ = ["Progress", "Task", "TrainingResult", "load_tokenizer", "run_task"]


@dataclass(frozen=True, slots=True)
class Task:
    """What the torch part of a run gets: everything is checked and rendered.

    `start` is the folder of the version that the run goes on with, None for a fresh adapter.
    """

    config: TrainConfig
    base: Path
    items: Sequence[Item]
    held_out: Sequence[Item]
    start: Path | None = None


def run_task(task: Task, folder: Path, out: Path, progress: Progress) -> TrainingResult:
    """Train, with `folder` for what is written meanwhile, and write the result to the new folder `out`.

    Raises: WardrobeError: when the loss stops being a number.
    """
    watch = Watch(progress)
    with _quiet():
        trainer = _build(task, folder, watch)
        started = time.monotonic()
        trainer.train()
        seconds = time.monotonic() - started
        _check_losses(task.config.name, watch.losses)
        eval_loss = float(trainer.evaluate()["eval_loss"]) if task.held_out else None
        method_of(task.config).save(trainer, out)
    losses = tuple(watch.losses)
    return TrainingResult(len(losses), seconds, watch.tokens, losses, eval_loss, _device(trainer))


def _build(task: Task, folder: Path, watch: Watch) -> Any:
    from transformers import PrinterCallback, set_seed

    config = task.config
    set_seed(config.seed)  # before the adapter is made: its first weights are random
    model, peft_config = make_model(config, task.base, task.start)
    trainer = method_of(config).build(
        Workshop(
            config=config,
            base=task.base,
            tokenizer=load_tokenizer(task.base),
            model=model,
            peft_config=peft_config,
            arguments=common_arguments(config, folder),
            items=task.items,
            held_out=task.held_out,
            callbacks=[callback(watch)],
            folder=folder,
        )
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def _device(trainer: Any) -> str:
    import torch

    kind = str(trainer.args.device.type)
    return f"{kind}, {torch.get_num_threads()} threads" if kind == "cpu" else kind


def _check_losses(name: str, losses: Sequence[float]) -> None:
    for step, loss in enumerate(losses, start=1):
        if not math.isfinite(loss):
            fact = f"the loss became {loss} at step {step} of {len(losses)}"
            raise WardrobeError(name, fact, "lower learning_rate; nothing was registered")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    from transformers.utils import logging

    # bitsandbytes reports a 4-bit kernel that it cannot fetch; its own CPU kernels serve as well.
    getLogger("bitsandbytes").setLevel(ERROR)
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            # NOTE: transformers and torch warn about their own deprecations in nearly every call.
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(verbosity)
