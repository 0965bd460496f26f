"""Each setting of the optimiser and the precision changes what transformers is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from registry.errors import UsageError
from train.config import TrainConfig
from train.loop.arguments import check_precision, common_arguments
from train.process.environment import device_has_gpu


def arguments(**changes: Any) -> dict[str, Any]:
    document = {"name": "a", "data": {"train": "rows.jsonl"}, **changes}
    return common_arguments(TrainConfig.model_validate(document), Path("work"))


@pytest.mark.parametrize(
    ("key", "value", "argument", "told"),
    [
        ("learning_rate", 0.01, "learning_rate", 0.01),
        ("epochs", 2.0, "num_train_epochs", 2.0),
        ("steps", 7, "max_steps", 7),
        ("batch_size", 3, "per_device_train_batch_size", 3),
        ("accumulation", 5, "gradient_accumulation_steps", 5),
        ("schedule", "cosine", "lr_scheduler_type", "cosine"),
        ("warmup", 0.5, "warmup_steps", 0.5),
        ("optimiser", "adamw_8bit", "optim", "adamw_8bit"),
        ("weight_decay", 0.1, "weight_decay", 0.1),
        ("max_grad_norm", 0.5, "max_grad_norm", 0.5),
        ("gradient_checkpointing", True, "gradient_checkpointing", True),
        ("grouping", "random", "train_sampling_strategy", "random"),
    ],
)
def test_a_setting_of_the_optimiser_reaches_transformers(
    key: str, value: object, argument: str, told: object
) -> None:
    assert arguments(training={key: value})[argument] == told
    assert arguments().get(argument) != told


def test_the_seed_reaches_transformers_and_its_own_savings_and_reports_are_off() -> None:
    told = arguments(seed=9)
    assert told["seed"] == 9
    assert (told["save_strategy"], told["report_to"]) == ("no", "none")
    assert told["logging_nan_inf_filter"] is False


@pytest.mark.skipif(device_has_gpu(), reason="needs a machine without a GPU")
def test_half_precision_needs_a_gpu() -> None:
    config = TrainConfig.model_validate(
        {"name": "a", "data": {"train": "x"}, "training": {"precision": "fp16"}}
    )
    with pytest.raises(UsageError, match="fp16 needs a GPU"):
        check_precision(config)
    assert not arguments(training={"precision": "bf16"})["bf16"]
