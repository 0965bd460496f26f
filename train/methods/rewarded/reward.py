"""A reward model from preference pairs (Bradley and Terry): what `rloo` and `grpo` may learn from.

The result is an artefact of its job, never a version: it answers nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from registry.errors import UsageError
from train.config import TrainConfig
from train.methods.finishing import finish
from train.methods.interface import TrainerInputs
from train.methods.paired.pairs import PairMethod
from train.methods.rewarded.reward_model import save_reward_model, scoring_pad, with_score_head
from train.settings.methods import Reward


class RewardMethod(PairMethod):
    """One number per answer, higher for the chosen one."""

    servable = False

    def check(self, config: TrainConfig) -> None:
        """Check that it is a plain LoRA on the base: its folder holds a LoRA and a head.

        Raises: UsageError.
        """
        if config.start is not None:
            fact = f"from: {config.start} is given, and a reward model starts from the base"
            raise UsageError(config.name, fact, "leave `from` out", param="from")
        if config.lora.kind != "lora":
            fact = f"lora.kind is {config.lora.kind}, and a reward model is a plain LoRA with a head"
            raise UsageError(config.name, fact, "set lora.kind to lora", param="lora.kind")

    def build(self, inputs: TrainerInputs) -> Any:
        """Return TRL's reward trainer over the base with a new head."""
        from peft import TaskType
        from trl import RewardConfig
        from trl.trainer.reward_trainer import DataCollatorForPreference

        settings = inputs.run.config.method
        assert isinstance(settings, Reward)
        pad = scoring_pad(inputs.tokenizer)
        shape = inputs.peft_config
        assert shape is not None
        shape.task_type, shape.modules_to_save = TaskType.SEQ_CLS, ["score"]
        trainer = _trainer_class()(
            model=with_score_head(inputs.model, pad),
            args=RewardConfig(
                **inputs.arguments,
                # Longer rows were cut or refused already; TRL would leave them out in silence.
                max_length=None,
                remove_unused_columns=False,
                center_rewards_coefficient=settings.centre,
                disable_dropout=inputs.run.config.lora.dropout == 0,
                pad_token=inputs.tokenizer.convert_ids_to_tokens(pad),
            ),
            data_collator=DataCollatorForPreference(pad_token_id=pad),
            train_dataset=_rows(inputs.run.items),
            eval_dataset=_rows(inputs.run.held_out) if inputs.run.held_out else None,
            processing_class=inputs.tokenizer,
            peft_config=shape,
            callbacks=list(inputs.callbacks),
        )
        trainer.base_folder = inputs.run.base.path
        return finish(trainer)

    def save(self, trainer: Any, folder: Path) -> None:
        """Write the artefact: the adapter with its head, and which base it belongs to."""
        save_reward_model(trainer.accelerator.unwrap_model(trainer.model), trainer.base_folder, folder)


def _rows(items: Sequence[Any]) -> Any:
    from datasets import Dataset

    return Dataset.from_dict(
        {
            "chosen_ids": [[*item.prompt_ids, *item.chosen_ids] for item in items],
            "rejected_ids": [[*item.prompt_ids, *item.rejected_ids] for item in items],
            "length": [item.length for item in items],
        }
    )


def _trainer_class() -> type[Any]:
    from trl import RewardTrainer

    class PairedRewardTrainer(RewardTrainer):
        """Takes the rows as they are; names the margin as the other methods do."""

        base_folder: Path

        def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
            return dataset

        def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
            found = self._metrics["train" if self.model.training else "eval"]
            for ours, theirs in (("rewards/margins", "margin"), ("rewards/accuracies", "accuracy")):
                if theirs in found:
                    found[ours] = found.pop(theirs)
            super().log(logs, start_time)

    return PairedRewardTrainer
