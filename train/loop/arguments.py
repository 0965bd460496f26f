"""The keywords of transformers' TrainingArguments that every method shares.

Owns how a config's settings are said to transformers. Imports torch only to ask for a GPU.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from registry.errors import UsageError
from train.config import TrainConfig
from train.process.environment import device_has_gpu
from train.settings.optimiser import OptimiserSettings

_OPTIMISERS = {"adamw": "adamw_torch_fused", "adamw_8bit": "adamw_8bit"}


def check_precision(config: TrainConfig) -> None:
    """Refuse a precision that the device cannot train in; looks for a GPU only where it matters.

    Raises: UsageError: fp16 without a GPU.
    """
    if config.training.precision == "fp16" and not device_has_gpu():
        fact = "training.precision fp16 needs a GPU: its scaled gradients have no kernels on a CPU"
        raise UsageError(config.name, fact, "use bf16 or fp32", param="training.precision")


def common_arguments(config: TrainConfig, folder: Path) -> dict[str, Any]:
    """Return the keywords; `folder` is for what transformers writes of its own accord.

    Raises: UsageError: fp16 without a GPU.
    """
    gpu = device_has_gpu()
    settings = config.training
    check_precision(config)
    return {
        "output_dir": str(folder),
        "seed": config.seed,
        "per_device_train_batch_size": settings.batch_size,
        "per_device_eval_batch_size": settings.batch_size,
        "gradient_accumulation_steps": settings.accumulation,
        "learning_rate": config.learning_rate,
        "lr_scheduler_type": settings.schedule,
        "weight_decay": settings.weight_decay,
        "max_grad_norm": settings.max_grad_norm,
        **_length(settings),
        "train_sampling_strategy": "group_by_length" if settings.grouping == "length" else "random",
        "optim": _OPTIMISERS[settings.optimiser],
        # Recomputing activations halves the speed on a CPU, which has the memory; a GPU may not.
        "gradient_checkpointing": gpu
        if settings.gradient_checkpointing is None
        else settings.gradient_checkpointing,
        # The other kind needs inputs with a gradient, which a frozen base does not have.
        "gradient_checkpointing_kwargs": {"use_reentrant": False},
        "bf16": gpu and settings.precision in {"auto", "bf16"},
        "fp16": gpu and settings.precision == "fp16",
        "use_cpu": not gpu,
        "dataloader_pin_memory": gpu,
        "logging_steps": 1,
        # A loss that is not a number must be seen, not replaced by an average.
        "logging_nan_inf_filter": False,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }


def _length(settings: OptimiserSettings) -> dict[str, float]:
    # transformers reads a warm-up below 1 as a share of all steps.
    length: dict[str, float] = {"warmup_steps": settings.warmup}
    if settings.steps is not None:
        return {**length, "max_steps": settings.steps}
    return {**length, "num_train_epochs": settings.epochs}
