"""The keywords of transformers' TrainingArguments that every method shares.

Owns how a config's settings are said to transformers. Imports torch only to ask for a GPU.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from train.config import TrainConfig
from train.environment import device_has_gpu
from train.settings.optimiser import OptimiserSettings


def common_arguments(config: TrainConfig, folder: Path) -> dict[str, Any]:
    """Return the keywords; checkpoints go to `folder`."""
    gpu = device_has_gpu()
    settings = config.training
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
        # Recomputing activations halves the speed on a CPU, which has the memory; a GPU may not.
        "gradient_checkpointing": gpu
        if settings.gradient_checkpointing is None
        else settings.gradient_checkpointing,
        "bf16": gpu,
        "use_cpu": not gpu,
        "dataloader_pin_memory": gpu,
        "logging_steps": 1,
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
