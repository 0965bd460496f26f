"""Writing an adapter folder: PEFT's two files and nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from train.model.sharding import is_shared_out, whole_weights

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")


def save_adapter(trainer: Any, folder: Path) -> None:
    """Write the trainer's adapter `default` to the new folder `folder`.

    A frozen reference adapter, PEFT's model card (an empty form that names the base's path on this
    machine) and everything that TRL would add stay out.
    """
    model = trainer.accelerator.unwrap_model(trainer.model)
    # PEFT reads the model itself, which may hold but pieces of the weights.
    pieces = {"state_dict": whole_weights(model)} if is_shared_out(model) else {}
    # An adapted embedding needs no copy of the base's own beside it, which vLLM would pass over.
    model.save_pretrained(folder, selected_adapters=["default"], save_embedding_layers=False, **pieces)
    for entry in folder.iterdir():
        if entry.name not in ADAPTER_FILES:
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
