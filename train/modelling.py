"""The model that is trained: the base in its precision, and the adapter on it.

Owns loading and the shape of the adapter; knows no method and no step. Invariant: nothing here reads
anything but the base's folder, the version that the run starts from, and the config.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from train.config import TrainConfig


def load_tokenizer(base: Path) -> Any:
    """Return the base's tokenizer, from its folder only."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(base, local_files_only=True)


def make_model(config: TrainConfig, base: Path, start: Path | None = None) -> tuple[Any, Any | None]:
    """Return the model and the PEFT config, as `train.methods.interface.Workshop` wants them.

    `start` is the folder of the version that the run goes on with. The caller has set the seed: the
    adapter's first weights are random.
    """
    del start
    return load_base(base), lora_config(config)


def load_base(base: Path) -> Any:
    """Return the base in bf16, from its folder only."""
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(
        base, dtype=torch.bfloat16, local_files_only=True, attn_implementation="sdpa"
    )


def lora_config(config: TrainConfig) -> Any:
    """Return the adapter's PEFT config."""
    from peft import LoraConfig

    lora = config.lora
    modules = lora.target_modules
    return LoraConfig(
        r=lora.rank,
        lora_alpha=lora.scale_alpha,
        lora_dropout=lora.dropout,
        target_modules=modules if isinstance(modules, str) else list(modules),
        task_type="CAUSAL_LM",
    )
