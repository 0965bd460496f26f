"""How long and how fast a run learns, and in what precision."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from registry.settings.models import Strict
from train.settings.steps import Warmup

Schedule = Literal["constant", "linear", "cosine"]


class OptimiserSettings(Strict):
    """How long and how fast it learns.

    `learning_rate` defaults by method (train/README.md). `steps` wins over `epochs` and may exceed one
    pass; during `warmup` the rate rises: a share of all steps (below 1) or so many steps (a whole number
    from 1); `max_length` counts tokens of the rendered conversation. `batch_size` rows go through the model
    at once, and `accumulation` such batches make one step. `grouping: length` puts rows of like length
    together. `precision` is of the base's weights; `auto` is bf16, the adapter is always fp32.
    `router_aux_loss_coef` is the weight of the loss that keeps the experts of a mixture-of-experts base
    evenly used (default: the base's own; 0: none).
    """

    learning_rate: float | None = Field(default=None, gt=0, lt=1)
    epochs: float = Field(default=3.0, gt=0, le=1_000_000)
    steps: int | None = Field(default=None, ge=1, lt=2**31)
    batch_size: int = Field(default=8, ge=1, le=2**20)
    accumulation: int = Field(default=1, ge=1, le=2**20)
    max_length: int = Field(default=1024, ge=2, lt=2**31)
    schedule: Schedule = "linear"
    warmup: Warmup = 0.05
    optimiser: Literal["adamw", "adamw_8bit"] = "adamw"
    weight_decay: float = Field(default=0.0, ge=0)
    max_grad_norm: float = Field(default=1.0, gt=0)
    precision: Literal["auto", "bf16", "fp16", "fp32"] = "auto"
    gradient_checkpointing: bool | None = None
    grouping: Literal["length", "random"] = "length"
    router_aux_loss_coef: float | None = Field(default=None, ge=0)
