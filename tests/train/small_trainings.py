"""Short trainings without jobs and versions: a method's trainer, trained and saved, with all that it logged.

For tests of the methods themselves, mostly on a tiny Llama with random weights and the real tokenizer,
which takes a second.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from registry.records import BaseModelInfo
from tests.fakes.base import TINY
from tests.fakes.llama import make_llama
from tests.train.bases import shortened
from tests.train.small_runs import write_small_run
from train.config import TrainConfig, load_config
from train.epoch.duration import duration_of
from train.epoch.items import TrainingItem
from train.epoch.mixture import Mixture
from train.methods import TrainerInputs, method_of
from train.prepared import PreparedRun
from train.settings.data import EVAL


@dataclass(frozen=True)
class Training:
    """A training that is over: `logs` are its steps, `out` is what it saved."""

    config: TrainConfig
    trainer: Any
    items: Sequence[TrainingItem]
    logs: list[dict[str, float]]
    out: Path

    @property
    def losses(self) -> list[float]:
        """Return the loss of each step."""
        return [log["loss"] for log in self.logs]

    @property
    def digest(self) -> str:
        """Return the SHA-256 (hex) of all files that were saved."""
        digest = hashlib.sha256()
        for path in sorted(self.out.iterdir()):
            digest.update(path.name.encode() + path.read_bytes())
        return digest.hexdigest()


def make_tiny_base(folder: Path, tokenizer: Any) -> Path:
    """Write a Llama of two layers with random weights, and a shortened real tokenizer; return its folder."""
    tokenizer = shortened(tokenizer)
    make_llama(folder, dataclasses.replace(TINY, vocab=len(tokenizer)))
    tokenizer.save_pretrained(folder)
    return folder


def build_small(folder: Path, base: Path, method: str, start: Path | None = None, /, **changes: Any) -> Any:
    """Return config, trainer and items of a small run (`small_runs`), ready to train."""
    from transformers import set_seed

    from train.loop.arguments import common_arguments
    from train.model.loading import load_tokenizer, make_model

    folder.mkdir(parents=True, exist_ok=True)
    config = load_config(write_small_run(folder, method, **changes))
    found, tokenizer = method_of(config), load_tokenizer(base)
    found.check(config)
    files = {label: found.read(place, tokenizer, config) for label, place in config.data.files.items()}
    items, held_out = files[config.data.train[0].label].items, files[EVAL].items if EVAL in files else ()
    with quiet():
        set_seed(config.seed)
        model, shape = make_model(config, base, start)
        arguments = common_arguments(config, folder / "work")
        run = PreparedRun(
            config=config,
            root=folder,
            base=BaseModelInfo("tiny", base, "sha256:0", None, {}),
            files=files,
            mixture=Mixture(items, {}),
            duration=duration_of(config, found.epoch(items, config)),
            held_out=held_out,
        )
        inputs = TrainerInputs(run, tokenizer, model, shape, arguments, callbacks=[], folder=folder)
        return config, found.build(inputs), items


def train_small(
    folder: Path, base: Path, method: str, start: Path | None = None, /, **changes: Any
) -> Training:
    """Train a small run of `method` and save what it made under `folder`."""
    config, trainer, items = build_small(folder, base, method, start, **changes)
    with quiet():
        trainer.train()
        out = folder / f"{config.name}-out"
        method_of(config).save(trainer, out)
    logs = [log for log in trainer.state.log_history if "loss" in log]
    return Training(config, trainer, items, logs, out)


@contextmanager
def quiet() -> Iterator[None]:
    """Let transformers, TRL and torch warn about their own deprecations, unheard."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
