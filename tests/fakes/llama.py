"""A whole Llama in miniature: a model folder with real (random) weights, which transformers loads and trains.

Unlike `tests.fakes.base` it computes; it takes a second and half a megabyte.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.fakes.base import TINY, BaseShape, make_base


def make_llama(folder: Path, shape: BaseShape = TINY, *, tied: bool = True, seed: int = 0) -> Path:
    """Write a tiny Llama with random weights in bf16 and return its folder."""
    import torch
    from transformers import AutoConfig, LlamaForCausalLM

    make_base(folder, shape, tied=tied, config={"bos_token_id": 1, "eos_token_id": 1, "pad_token_id": 1})
    torch.manual_seed(seed)
    model = LlamaForCausalLM(AutoConfig.from_pretrained(folder)).to(torch.bfloat16)
    for name in ("config.json", "model.safetensors"):
        (folder / name).unlink()
    model.save_pretrained(folder)
    return folder


def load_llama(folder: Path, dtype: str = "float32") -> Any:
    """Load the model of a folder."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, local_files_only=True).eval()


def logits(model: Any, length: int = 24) -> Any:
    """Return the model's logits at every position of a fixed text: (length, vocabulary)."""
    import torch

    generator = torch.Generator().manual_seed(7)
    ids = torch.randint(3, model.config.vocab_size, (1, length), generator=generator)
    with torch.no_grad():
        return model.eval()(ids).logits[0].float()


def train_steps(model: Any, steps: int = 3, rate: float = 2e-2) -> Any:
    """Take a few real optimiser steps on a fixed text with everything that is trainable; return the model."""
    import torch

    generator = torch.Generator().manual_seed(11)
    ids = torch.randint(3, model.config.vocab_size, (4, 32), generator=generator)
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=rate)
    for _ in range(steps):
        model(input_ids=ids, labels=ids).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    return model.eval()
