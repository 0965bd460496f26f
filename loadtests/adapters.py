"""Adapters of a wanted size for benchmarks: random weights of the base's own shapes, written from bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from registry.records import BaseModelInfo

LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_BF16_ONE_HUNDREDTH = 0x3C24  # 0.01 in bfloat16, the scale of the weights


def write_adapter(folder: Path, base: BaseModelInfo, seed: int, megabytes: float) -> Path:
    """Write a PEFT LoRA folder of about `megabytes` (bf16, all linear modules) and return it.

    The rank is the largest of 1, 2, … that stays within the size.
    """
    per_rank = sum(2 * (rows + columns) for rows, columns in _targets(base, LINEAR).values())
    return write_ranked(folder, base, seed, max(1, int(megabytes * 1e6) // per_rank))


def write_ranked(
    folder: Path, base: BaseModelInfo, seed: int, rank: int, modules: Sequence[str] = LINEAR
) -> Path:
    """Write a PEFT LoRA folder of `rank` for `modules` (bf16) and return it.

    Values are ±0.01, so that answers differ from the base's without being broken.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": rank, "bias": "none"}
    config |= {"target_modules": list(modules), "base_model_name_or_path": base.name}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    _write_tensors(folder / "adapter_model.safetensors", _targets(base, modules), rank, seed)
    return folder


def _targets(base: BaseModelInfo, modules: Sequence[str]) -> dict[str, tuple[int, int]]:
    return {name: dims for name, dims in base.modules.items() if name.rpartition(".")[2] in modules}


def _write_tensors(path: Path, modules: Mapping[str, tuple[int, int]], rank: int, seed: int) -> None:
    header: dict[str, object] = {}
    offset = 0
    for name, (rows, columns) in modules.items():
        for half, shape in (("A", [rank, columns]), ("B", [rows, rank])):
            size = 2 * shape[0] * shape[1]
            header[f"base_model.model.{name}.lora_{half}.weight"] = {
                "dtype": "BF16",
                "shape": shape,
                "data_offsets": [offset, offset + size],
            }
            offset += size
    signs = np.random.default_rng(seed).integers(0, 2, offset // 2, dtype=np.uint16) << 15
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    path.write_bytes(len(encoded).to_bytes(8, "little") + encoded + (signs | _BF16_ONE_HUNDREDTH).tobytes())
