"""The adapters of the comparison: trained for some steps, random at several scales, and such as must fail."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from loadtests.adapters import write_ranked
from registry.records import BaseModelInfo

SCALES = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
"""Of the second half: 1 is ±0.01 in both halves, which moves a score by some hundredths of a nat."""

WEIGHTS = "adapter_model.safetensors"
TEXTS = (
    "Thank you for your order. Your parcel has left our warehouse and arrives within two days.",
    "I am sorry to hear that. Please send us a photo, and we refund the amount at once.",
    "SELECT name, total FROM orders WHERE total > 100 ORDER BY total DESC LIMIT 10;",
    "The court finds that the notice was given too late and dismisses the claim with costs.",
)


def trained(folder: Path, base: Path, *, runs: int, steps: int) -> Iterator[tuple[str, Path]]:
    """Train `runs` adapters on the real base, and yield each after every one of its steps."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(base)
    for run in range(runs):
        torch.manual_seed(run)
        config = LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
        model = get_peft_model(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), config)
        optimizer = torch.optim.AdamW(model.parameters(), lr=10.0 ** -(3 + run % 3))
        ids = tokenizer(TEXTS[run % len(TEXTS)], return_tensors="pt").input_ids
        for step in range(1, steps + 1):
            optimizer.zero_grad()
            model(input_ids=ids, labels=ids).loss.backward()
            optimizer.step()
            place = folder / f"trained-{run}-{step}"
            model.save_pretrained(place)
            yield place.name, place


def random(folder: Path, base: BaseModelInfo, *, each: int) -> Iterator[tuple[str, Path]]:
    """Yield `each` random adapters at every scale."""
    for scale in SCALES:
        for seed in range(each):
            place = write_ranked(folder / f"random-{scale:g}-{seed}", base, seed, 8, ("q_proj", "v_proj"))
            _scale(place, scale)
            yield place.name, place


def without_effect(folder: Path, base: BaseModelInfo, *, each: int) -> Iterator[tuple[str, Path]]:
    """Yield adapters that must be refused: zero, not a number, and made for another model's modules."""
    for seed in range(each):
        for kind, factor in (("zero", 0.0), ("nan", float("nan"))):
            place = write_ranked(folder / f"{kind}-{seed}", base, seed, 8, ("q_proj", "v_proj"))
            _scale(place, factor)
            yield place.name, place
        yield f"mismatched-{seed}", _mismatched(folder / f"mismatched-{seed}", base, seed)


def _scale(folder: Path, factor: float) -> None:
    path = folder / WEIGHTS
    header, body = _read(path)
    for name, entry in header.items():
        if ".lora_B." in name:
            begin, end = entry["data_offsets"]
            halves = np.frombuffer(bytes(body[begin:end]), "<u2").astype("<u4") << 16
            scaled = (halves.view("<f4") * np.float32(factor)).view("<u4") >> 16
            body[begin:end] = scaled.astype("<u2").tobytes()
    _write(path, header, body)


def _mismatched(folder: Path, base: BaseModelInfo, seed: int) -> Path:
    """Write an adapter of layers that the engine has not: vLLM loads it without a word, to no effect."""
    path = write_ranked(folder, base, seed, 8, ("q_proj",)) / WEIGHTS
    header, body = _read(path)
    _write(path, {name.replace(".layers.", ".layers.9"): entry for name, entry in header.items()}, body)
    return folder


def _read(path: Path) -> tuple[dict[str, Any], bytearray]:
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + size]), bytearray(data[8 + size :])


def _write(path: Path, header: dict[str, Any], body: bytearray) -> None:
    encoded = json.dumps(header).encode()
    path.write_bytes(len(encoded).to_bytes(8, "little") + encoded + body)
