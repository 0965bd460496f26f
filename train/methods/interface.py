"""The seam between a run and its method: what a method reads, and what it builds.

A run (train/runs/run.py, train/loop/trainer.py) knows no method by name; a method knows neither
checkpoints nor the registry. Invariant: `read` checks everything that can be checked without torch, and every
row that it leaves out is named.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from train.config import TrainConfig
from train.dataset.containers.place import Where
from train.dataset.forms.mapping import PLAIN, RowMapping
from train.epoch.duration import Epoch
from train.epoch.encoding import Tokenizer
from train.epoch.items import ItemFile, TrainingItem


@dataclass(frozen=True, slots=True)
class TrainerInputs:
    """Everything that a method needs to build its trainer.

    `model` is loaded and in training precision: a plain model when `peft_config` is given (the trainer
    attaches a fresh adapter, the base with the adapter off is the reference), a PEFT model when the run goes
    on with a version's weights (`from`; the start is then the reference), or a plain model and no
    `peft_config` for full fine-tuning. `arguments` are the keywords of TrainingArguments that all methods
    share; a method adds its own and may override none of `output_dir`, `seed` and the save settings.
    `callbacks` must all be handed to the trainer. `folder` is the run's working folder; `root` says how a
    server would read calls of tools.
    """

    config: TrainConfig
    base: Path
    tokenizer: Any
    model: Any
    peft_config: Any | None
    arguments: Mapping[str, Any]
    items: Sequence[TrainingItem]
    held_out: Sequence[TrainingItem]
    callbacks: Sequence[Any]
    folder: Path
    root: Path | None = None


class Method(Protocol):
    """One training method."""

    @property
    def servable(self) -> bool:
        """Tell whether it makes an adapter; a reward model is an artefact of its job instead."""

    def check(self, config: TrainConfig) -> None:
        """Check what of the settings no type can check, before any file is read.

        Raises: UsageError.
        """

    def read(
        self, path: Where, tokenizer: Tokenizer, config: TrainConfig, reading: RowMapping = PLAIN
    ) -> ItemFile[TrainingItem]:
        """Read and render every row of the file at `path`, as `reading` says; no torch.

        Raises: UsageError: naming file and row.
        """

    def epoch(self, items: Sequence[TrainingItem], config: TrainConfig) -> Epoch:
        """Return what one pass over `items` sends through the model; no torch."""

    def build(self, workshop: TrainerInputs) -> Any:
        """Return a transformers `Trainer` that is ready to train."""

    def save(self, trainer: Any, folder: Path) -> None:
        """Write what was trained to the new folder `folder`, and nothing else."""
