"""The seam between a run and its method: what a method reads, and what it builds.

A run (train/runs/run.py, train/loop/trainer.py) knows no method by name; a method knows neither
checkpoints nor the registry. Invariant: `read` checks everything that can be checked without torch, and every
row that it leaves out is named.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from train.config import TrainConfig
from train.dataset.containers.place import Where
from train.dataset.forms.mapping import PLAIN, RowMapping
from train.epoch.duration import Epoch
from train.epoch.encoding import Tokenizer
from train.epoch.items import ItemFile, TrainingItem
from train.methods.saving import save_adapter
from train.prepared import PreparedRun


@dataclass(frozen=True, slots=True)
class TrainerInputs:
    """Everything that a method needs to build its trainer: the run, and what was loaded for it.

    `model` is in training precision: a plain model when `peft_config` is given (the trainer
    attaches a fresh adapter, the base with the adapter off is the reference), a PEFT model when the run goes
    on with a version's weights (`from`; the start is then the reference), or a plain model and no
    `peft_config` for full fine-tuning. `arguments` are the keywords of TrainingArguments that all methods
    share; a method adds its own and may override none of `output_dir`, `seed` and the save settings.
    `callbacks` must all be handed to the trainer. `folder` is the run's working folder.
    """

    run: PreparedRun
    tokenizer: Any
    model: Any
    peft_config: Any | None
    arguments: Mapping[str, Any]
    callbacks: Sequence[Any]
    folder: Path


class Method(ABC):
    """One training method. What is known of it before its rows are read is in its settings."""

    servable: bool = True
    """Whether it makes an adapter; a reward model is an artefact of its job instead."""

    def complete(self, config: TrainConfig, root: Path) -> TrainConfig:
        """Return `config` with what the method finds in the root.

        Raises: NotFound, Conflict: it is not there.
        """
        del root
        return config

    def check(self, config: TrainConfig) -> None:
        """Check what of the settings no type can check, before any file is read.

        Raises: UsageError.
        """
        del config

    @abstractmethod
    def read(
        self, path: Where, tokenizer: Tokenizer, config: TrainConfig, reading: RowMapping = PLAIN
    ) -> ItemFile[TrainingItem]:
        """Read and render every row of the file at `path`, as `reading` says; no torch.

        Raises: UsageError: naming file and row.
        """

    @abstractmethod
    def epoch(self, items: Sequence[TrainingItem], config: TrainConfig) -> Epoch:
        """Return what one pass over `items` sends through the model; no torch."""

    @abstractmethod
    def build(self, inputs: TrainerInputs) -> Any:
        """Return a transformers `Trainer` that is ready to train."""

    def save(self, trainer: Any, folder: Path) -> None:
        """Write what was trained to the new folder `folder`, and nothing else: two files of an adapter."""
        save_adapter(trainer, folder)
