"""Supervised training: the answers of conversations, each with its end-of-turn token.

Owns how labelled rows reach TRL's trainer. Logits are made only where a label is (TRL's fused head).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from train.config import TrainConfig
from train.data import Tokenizer, load_examples
from train.items import Item, ItemFile
from train.methods.interface import Workshop
from train.methods.saving import save_adapter


class SupervisedMethod:
    """Answers of conversations."""

    servable = True

    def check(self, config: TrainConfig) -> None:
        """Nothing beyond the types."""

    def read(self, path: Path, tokenizer: Tokenizer, config: TrainConfig) -> ItemFile[Item]:
        """Return every row rendered with the base's template, with its labels.

        Raises: UsageError: naming file and row.
        """
        return load_examples(
            path, tokenizer, max_length=config.training.max_length, overflow=config.data.overflow
        )

    def build(self, workshop: Workshop) -> Any:
        """Return TRL's SFT trainer over rows that are tokenised and labelled already."""
        from trl import SFTConfig, SFTTrainer

        arguments = SFTConfig(
            **workshop.arguments,
            max_length=workshop.config.training.max_length,
            # The rows come tokenised and labelled: TRL must not touch them.
            dataset_kwargs={"skip_prepare_dataset": True},
        )
        return SFTTrainer(
            model=workshop.model,
            args=arguments,
            train_dataset=labelled_rows(workshop.items),
            eval_dataset=labelled_rows(workshop.held_out) if workshop.held_out else None,
            processing_class=workshop.tokenizer,
            peft_config=workshop.peft_config,
            callbacks=list(workshop.callbacks),
        )

    def save(self, trainer: Any, folder: Path) -> None:
        """Write the adapter."""
        save_adapter(trainer, folder)


def labelled_rows(items: Sequence[Any]) -> Any:
    """Return the items as a data set with `input_ids` and `labels` [tokens of the row]."""
    from datasets import Dataset

    return Dataset.from_dict(
        {
            "input_ids": [list(item.input_ids) for item in items],
            "labels": [list(item.labels) for item in items],
        }
    )
