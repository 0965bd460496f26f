"""The methods and their own settings; each default in one place, with its source.

Owns the names of the methods. How each one trains is in `train.methods`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from registry.home import HomePath
from registry.settings.models import Strict
from train.evaluation.formats.specs import Spec


class _MethodSettings(Strict):
    """What every method says of itself before its trainer exists.

    `draws_answers`: its rows are prompts, so they have no loss of their own. `own_head`: a head of its own
    stands in place of `lm_head`. `shardable`: its weights may be shared out over processes (FSDP).
    """

    draws_answers: ClassVar[bool] = False
    own_head: ClassVar[bool] = False
    shardable: ClassVar[bool] = True

    def resolved(self, folder: Path) -> Self:
        """Return the settings with paths that count from `folder`."""
        del folder
        return self


class Supervised(_MethodSettings):
    """Answers of conversations: instruction, chat, prompt/completion, many turns, weights per message.

    `packing` joins short rows into rows of `max_length`, each seeing only itself.
    """

    type: Literal["supervised"] = "supervised"
    packing: bool = False


class Pretrain(_MethodSettings):
    """Plain documents (continual pre-training): every token is learnt, documents are packed end to end.

    Each document ends with the end-of-text token; one longer than `max_length` goes on in the next row.
    """

    type: Literal["pretrain"]


class Dpo(_MethodSettings):
    """Direct preference optimisation (arXiv 2305.18290).

    `beta` holds the policy near the start (paper: 0.1). `label_smoothing` is the share of pairs that are
    the wrong way round (`loss: robust`, arXiv 2403.00409). `supervised_weight` adds the loss of the chosen
    answer (RPO, arXiv 2404.19733; 0 leaves it out).
    """

    type: Literal["dpo"]
    beta: float = Field(default=0.1, gt=0)
    loss: Literal["sigmoid", "ipo", "hinge", "robust"] = "sigmoid"
    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5)
    supervised_weight: float = Field(default=0.0, ge=0)

    @model_validator(mode="after")
    def _smoothing_is_read(self) -> Dpo:
        if self.label_smoothing and self.loss != "robust":
            raise ValueError(f"label_smoothing is read by loss: robust only, not by {self.loss}")
        return self


class Kto(_MethodSettings):
    """Answers with a thumb up or down (arXiv 2402.01306); the weights balance unequal numbers of both."""

    type: Literal["kto"]
    beta: float = Field(default=0.1, gt=0)
    desirable_weight: float = Field(default=1.0, gt=0)
    undesirable_weight: float = Field(default=1.0, gt=0)


class Orpo(_MethodSettings):
    """Supervised loss and odds ratio in one (arXiv 2403.07691); needs no reference model."""

    type: Literal["orpo"]
    beta: float = Field(default=0.1, gt=0)


class Reward(_MethodSettings):
    """A reward model from preference pairs: an artefact of its job for `rloo` and `grpo`, never a version.

    `centre` pulls the mean reward to 0 (arXiv 2312.09244; 0.01 there).
    """

    own_head: ClassVar[bool] = True
    # Its trainer reads the whole model outside of its forward pass.
    shardable: ClassVar[bool] = False

    type: Literal["reward"]
    centre: float | None = Field(default=None, gt=0)


class RewardSource(Strict):
    """What judges the answers of a reinforcement run: graders of train/evaluation, a reward model, or both.

    `model` is the folder that a run with `method: reward` left. `weights` are the graders' in order, then
    the model's; all 1 by default.
    """

    graders: tuple[Spec, ...] = ()
    model: HomePath | None = None
    weights: tuple[float, ...] = ()

    @model_validator(mode="after")
    def _something_judges(self) -> RewardSource:
        judges = len(self.graders) + (self.model is not None)
        if judges == 0:
            raise ValueError("names neither graders nor a model")
        if self.weights and len(self.weights) != judges:
            raise ValueError(f"weights has {len(self.weights)} values for {judges} judges")
        return self


class _Online(_MethodSettings):
    """What both reinforcement methods share.

    `answers` are drawn for each prompt; a batch must be a multiple of it. `beta` weighs the distance to the
    start model.
    """

    draws_answers: ClassVar[bool] = True
    # Its trainer starts with weights of its own.
    shardable: ClassVar[bool] = False

    reward: RewardSource
    answers: int = Field(default=4, ge=2, le=256)
    max_answer_tokens: int = Field(default=256, ge=1)
    temperature: float = Field(default=1.0, gt=0, le=2)
    top_p: float = Field(default=1.0, gt=0, le=1)
    beta: float = Field(default=0.05, ge=0)

    def resolved(self, folder: Path) -> Self:
        """Return the settings with the reward model's path, which counts from `folder`."""
        return self if self.reward.model is None else self.with_model(folder / self.reward.model)

    def with_model(self, model: Path) -> Self:
        """Return the settings with another reward model."""
        return self.model_copy(update={"reward": self.reward.model_copy(update={"model": model})})


class Rloo(_Online):
    """REINFORCE leave-one-out (arXiv 2402.14740)."""

    type: Literal["rloo"]


class Grpo(_Online):
    """Group relative policy optimisation (arXiv 2402.03300); `epsilon` clips the ratio (paper: 0.2)."""

    type: Literal["grpo"]
    beta: float = Field(default=0.0, ge=0)
    epsilon: float = Field(default=0.2, gt=0, lt=1)


MethodSettings = Annotated[
    Supervised | Pretrain | Dpo | Kto | Orpo | Reward | Rloo | Grpo, Field(discriminator="type")
]

LEARNING_RATES: dict[str, float] = {
    "supervised": 2e-4,
    "pretrain": 1e-4,
    "dpo": 2e-5,
    "kto": 2e-5,
    "orpo": 5e-5,
    "reward": 1e-4,
    "rloo": 2e-5,
    "grpo": 2e-5,
}
"""Defaults for LoRA: about ten times those of full fine-tuning (QLoRA, arXiv 2305.14314; TRL's guides).

A full fine-tune takes a tenth.
"""
