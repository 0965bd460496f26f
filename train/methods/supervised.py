"""Supervised training: the answers of conversations, each with its end-of-turn token.

Owns how labelled rows reach TRL's trainer. Logits are made only where a label is (`train.model.head`).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from train.config import TrainConfig
from train.dataset.containers.place import Where
from train.dataset.forms.mapping import PLAIN, RowMapping
from train.epoch.duration import Epoch
from train.epoch.encoding import Tokenizer, load_examples
from train.epoch.items import ItemFile, TrainingItem
from train.methods.finishing import finish
from train.methods.interface import Method, TrainerInputs
from train.methods.packing import Packed, collate, pack_whole, packed_rows, packed_trainer_class
from train.settings.methods import Supervised


class SupervisedMethod(Method):
    """Answers of conversations."""

    def read(
        self, path: Where, tokenizer: Tokenizer, config: TrainConfig, reading: RowMapping = PLAIN
    ) -> ItemFile[TrainingItem]:
        """Return every row rendered with the base's template, with its labels.

        Raises: UsageError: naming file and row.
        """
        data = config.data
        return load_examples(
            path,
            tokenizer,
            max_length=config.training.max_length,
            overflow=data.overflow,
            answers=data.answers,
            reading=reading,
        )

    def epoch(self, items: Sequence[TrainingItem], config: TrainConfig) -> Epoch:
        """Return the rows, or the packed ones."""
        settings, tokens = config.method, sum(item.length for item in items)
        if isinstance(settings, Supervised) and settings.packing:
            return Epoch(len(pack_whole(items, config.training.max_length)), tokens)
        return Epoch(len(items), tokens)

    def build(self, inputs: TrainerInputs) -> Any:
        """Return TRL's SFT trainer over rows that are tokenised and labelled already."""
        from trl import SFTTrainer

        settings, limit = inputs.run.config.method, inputs.run.config.training.max_length
        if isinstance(settings, Supervised) and settings.packing:
            return make_packed_trainer(
                inputs, pack_whole(inputs.run.items, limit), pack_whole(inputs.run.held_out, limit)
            )
        trainer = SFTTrainer(
            model=inputs.model,
            args=_arguments(inputs),
            train_dataset=labelled_rows(inputs.run.items),
            eval_dataset=labelled_rows(inputs.run.held_out) if inputs.run.held_out else None,
            processing_class=inputs.tokenizer,
            peft_config=inputs.peft_config,
            callbacks=list(inputs.callbacks),
        )
        return finish(trainer)


def make_packed_trainer(inputs: TrainerInputs, rows: Sequence[Packed], held_out: Sequence[Packed]) -> Any:
    """Return the SFT trainer over packed rows, whose parts do not see each other."""
    padding = inputs.tokenizer.pad_token_id
    padding = inputs.tokenizer.eos_token_id if padding is None else padding
    trainer = packed_trainer_class()(
        model=inputs.model,
        args=_arguments(inputs),
        data_collator=partial(collate, padding=padding),
        train_dataset=packed_rows(rows),
        eval_dataset=packed_rows(held_out) if held_out else None,
        processing_class=inputs.tokenizer,
        peft_config=inputs.peft_config,
        callbacks=list(inputs.callbacks),
    )
    return finish(trainer)


def _arguments(inputs: TrainerInputs) -> Any:
    from trl import SFTConfig

    return SFTConfig(
        **inputs.arguments,
        max_length=inputs.run.config.training.max_length,
        # The rows come tokenised and labelled: TRL must not touch them.
        dataset_kwargs={"skip_prepare_dataset": True},
    )


def labelled_rows(items: Sequence[Any]) -> Any:
    """Return the items as a data set with `input_ids` and `labels` [tokens of the row]."""
    from datasets import Dataset

    return Dataset.from_dict(
        {
            "input_ids": [list(item.input_ids) for item in items],
            "labels": [list(item.labels) for item in items],
        }
    )
