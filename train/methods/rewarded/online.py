"""RLOO and GRPO: the model answers, graders or a reward model judge, better answers become likelier.

Owns the batches of prompts and how answers reach their judges. Each prompt gets `answers` answers at once;
what counts is how an answer compares with the others to the same prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from registry.errors import UsageError
from train.config import TrainConfig
from train.dataset.containers.place import Where
from train.dataset.forms.mapping import PLAIN, RowMapping
from train.epoch.duration import Epoch
from train.epoch.encoding import Tokenizer
from train.epoch.items import ItemFile, TrainingItem
from train.evaluation.models.listening import Listener
from train.methods.finishing import finish
from train.methods.interface import Method, TrainerInputs
from train.methods.rewarded.prompts import OnlinePrompt, read_prompts
from train.methods.rewarded.reward_model import RewardModel, check_reward_folder, reward_folder
from train.methods.rewarded.rewards import (
    Rewarder,
    check_graders,
    check_prompts,
    grading_rewards,
    model_reward,
)
from train.settings.methods import Grpo, Rloo


class _OnlineMethod(Method):
    """What both have in common."""

    def complete(self, config: TrainConfig, root: Path) -> TrainConfig:
        """Return `config` with the folder of the reward model, which may be a job's name.

        Raises: NotFound, Conflict.
        """
        settings = _settings(config)
        if settings.reward.model is None:
            return config
        found = settings.with_model(reward_folder(root, settings.reward.model))
        return config.model_copy(update={"method": found})

    def check(self, config: TrainConfig) -> None:
        """Check that batches hold whole groups of answers, and that whoever judges can.

        Raises: UsageError.
        """
        settings, training = _settings(config), config.training
        drawn = training.batch_size * training.accumulation
        if drawn % settings.answers:
            fact = (
                f"a step has {drawn} answers (training.batch_size {training.batch_size} × accumulation "
                f"{training.accumulation}), which is not a multiple of method.answers {settings.answers}"
            )
            remedy = f"set batch_size to {_next_multiple(training.batch_size, settings.answers)}"
            raise UsageError(config.name, fact, remedy, param="training.batch_size")
        if config.lora.dropout:
            fact = f"lora.dropout is {config.lora.dropout}, and answers are weighed without noise"
            raise UsageError(config.name, fact, "set it to 0", param="lora.dropout")
        if settings.max_answer_tokens >= training.max_length:
            fact = f"method.max_answer_tokens {settings.max_answer_tokens} leaves no room for a prompt"
            remedy = f"raise training.max_length ({training.max_length}) or lower it"
            raise UsageError(config.name, fact, remedy, param="method.max_answer_tokens")
        check_graders(config.name, settings.reward.graders)
        if settings.reward.model is not None:
            check_reward_folder(settings.reward.model)

    def read(
        self, path: Where, tokenizer: Tokenizer, config: TrainConfig, reading: RowMapping = PLAIN
    ) -> ItemFile[TrainingItem]:
        """Return every prompt, rendered with the base's template.

        Raises: UsageError: naming file and row.
        """
        settings = _settings(config)
        longest = config.training.max_length - settings.max_answer_tokens
        found = read_prompts(path, tokenizer, longest=longest, overflow=config.data.overflow, reading=reading)
        check_prompts(path, found.items, settings.reward.graders)
        return found

    def epoch(self, items: Sequence[TrainingItem], config: TrainConfig) -> Epoch:
        """Return the prompts, each with its answers to be drawn."""
        settings, tokens = _settings(config), sum(item.length for item in items)
        return Epoch(len(items), tokens, settings.answers, settings.max_answer_tokens)


class RlooMethod(_OnlineMethod):
    """REINFORCE with the other answers' mean reward as the baseline."""

    def build(self, inputs: TrainerInputs) -> Any:
        """Return TRL's RLOO trainer with our prompts and judges."""
        from trl import RLOOConfig, RLOOTrainer

        return _make_trainer(RLOOTrainer, RLOOConfig(**_arguments(inputs)), inputs)


class GrpoMethod(_OnlineMethod):
    """Rewards standardised within each group of answers, with a clipped ratio."""

    def build(self, inputs: TrainerInputs) -> Any:
        """Return TRL's GRPO trainer with our prompts and judges."""
        from trl import GRPOConfig, GRPOTrainer

        settings = inputs.run.config.method
        assert isinstance(settings, Grpo)
        arguments = GRPOConfig(**_arguments(inputs), epsilon=settings.epsilon)
        return _make_trainer(GRPOTrainer, arguments, inputs)


def _settings(config: TrainConfig) -> Rloo | Grpo:
    assert isinstance(config.method, Rloo | Grpo)
    return config.method


def _next_multiple(value: int, step: int) -> int:
    return -(-value // step) * step


def _arguments(inputs: TrainerInputs) -> dict[str, Any]:
    settings = _settings(inputs.run.config)
    return {
        **inputs.arguments,
        # TRL's own sampler repeats each prompt `answers` times; a batch of evaluation is one such group.
        "train_sampling_strategy": "random",
        "per_device_eval_batch_size": settings.answers,
        "num_generations": settings.answers,
        "max_completion_length": settings.max_answer_tokens,
        "temperature": settings.temperature,
        "top_p": settings.top_p,
        "beta": settings.beta,
        "reward_weights": list(settings.reward.weights) or None,
        "disable_dropout": True,
    }


def _make_trainer(kind: type[Any], arguments: Any, inputs: TrainerInputs) -> Any:
    prompts, first = _prompts(inputs), len(inputs.run.items)
    trainer = _trainer_class(kind)(
        model=inputs.model,
        reward_funcs=_rewards(inputs, prompts),
        args=arguments,
        train_dataset=_rows(range(first)),
        eval_dataset=_rows(range(first, len(prompts))) if inputs.run.held_out else None,
        processing_class=inputs.tokenizer,
        peft_config=inputs.peft_config,
        callbacks=list(inputs.callbacks),
    )
    trainer.known_prompts = [list(prompt.prompt_ids) for prompt in prompts]
    return finish(trainer)


def _prompts(inputs: TrainerInputs) -> list[OnlinePrompt]:
    return [item for item in (*inputs.run.items, *inputs.run.held_out) if isinstance(item, OnlinePrompt)]


def _rewards(inputs: TrainerInputs, prompts: Sequence[OnlinePrompt]) -> list[Rewarder]:
    run, source = inputs.run, _settings(inputs.run.config).reward
    rewards = grading_rewards(prompts, source.graders, Listener(run.base.path, root=run.root).hear)
    if source.model is not None:
        judge = RewardModel(source.model, run.base.path, inputs.tokenizer, dtype=inputs.model.dtype)
        rewards.append(model_reward(judge.to(inputs.model.device).scores))
    return rewards


def _rows(numbers: range) -> Any:
    from datasets import Dataset

    # TRL hands `prompt` through untouched up to `_tokenize_prompts`, which looks the ids up by its number.
    return Dataset.from_dict({"prompt": [str(number) for number in numbers], "item": list(numbers)})


def _trainer_class(kind: type[Any]) -> type[Any]:
    class OnlineTrainer(kind):
        """Takes prompt ids as they are; its evaluation loss is minus the mean reward."""

        known_prompts: list[list[int]]

        def _tokenize_prompts(self, prompts: Sequence[str]) -> tuple[list[list[int]], None, dict[str, Any]]:
            return [self.known_prompts[int(number)] for number in prompts], None, {}

        def _calculate_rewards(
            self, inputs: Any, prompts: Any, completions: Any, completion_ids: Any, *rest: Any
        ) -> Any:
            ends = set(self.eos_token_ids)
            rows = [
                {**row, "prompt_ids": self.known_prompts[row["item"]], "stopped": ids[-1] in ends}
                for row, ids in zip(inputs, completion_ids, strict=True)
            ]
            return super()._calculate_rewards(rows, prompts, completions, completion_ids, *rest)

        def prediction_step(self, model: Any, inputs: Any, *_: Any, **__: Any) -> tuple[Any, None, None]:
            import torch

            del model
            self._prepare_inputs(inputs)  # answers and judges them
            return -torch.tensor(self._metrics["eval"]["reward"][-1]), None, None

    return OnlineTrainer
