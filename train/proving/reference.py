"""The reference: what transformers and PEFT say that a version's log-probabilities are.

Owns the model in memory, once in 32 bits and once rounded to the dtype that is served, so that what rounding
does is measured on the very tokens that are compared. Nothing of the server's is used here. Needs four bytes
per parameter of the base.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from registry.errors import UsageError
from train.process.silence import quiet

Scores = list[list[float]]
"""Per prompt, the log-probability (nats) of each of its tokens but the first, given those before it."""

BATCH_TOKENS = 512
"""Tokens in one pass: few passes, as threads wait for each other in each; logits of a bounded size."""


@dataclass(frozen=True, slots=True)
class References:
    """The same prompts four times: with and without the adapter, in 32 bits and rounded."""

    adapter: Scores
    base: Scores
    rounded_adapter: Scores
    rounded_base: Scores


def served_dtype(base: Path) -> str:
    """Return the dtype that a server gives the base in folder `base` unless told otherwise: its own.

    32 bits count as 16, as vLLM's `auto` does.
    """
    from transformers import AutoConfig

    found = str(AutoConfig.from_pretrained(base, local_files_only=True).dtype or "float32")
    name = found.removeprefix("torch.")
    return "bfloat16" if name == "float32" else name


def refer(base: Path, adapter: Path, prompts: Sequence[Sequence[int]], dtype: str) -> References:
    """Score `prompts` (token ids) with the base in folder `base` and the PEFT adapter in `adapter`.

    Raises: UsageError: transformers or PEFT are not installed.
    """
    import torch

    with quiet():
        model = _load(base, adapter)
        whole, whole_base = _both(model, prompts)
        model = model.to(getattr(torch, dtype))
        rounded, rounded_base = _both(model, prompts)
    return References(whole, whole_base, rounded, rounded_base)


def _load(base: Path, adapter: Path) -> Any:
    try:
        import torch
        from peft import PeftModel
        from transformers import AutoModelForCausalLM
    except ImportError as error:
        fact = f"needs transformers and PEFT for the reference ({error})"
        raise UsageError("train prove", fact, "pip install 'wardrobe-llm[train]'") from error
    model = AutoModelForCausalLM.from_pretrained(base, local_files_only=True, dtype=torch.float32)
    return PeftModel.from_pretrained(model, adapter, is_trainable=False).eval()


def _both(model: Any, prompts: Sequence[Sequence[int]]) -> tuple[Scores, Scores]:
    return _scores(model, prompts, nullcontext()), _scores(model, prompts, model.disable_adapter())


def _scores(model: Any, prompts: Sequence[Sequence[int]], context: Any) -> Scores:
    import torch

    found: Scores = [[] for _ in prompts]
    with context, torch.inference_mode():
        for batch in batches([len(prompt) for prompt in prompts]):
            width = max(len(prompts[index]) for index in batch)
            # Padded on the right: a causal model's real tokens never see what follows them.
            rows = [[*prompts[index], *[0] * (width - len(prompts[index]))] for index in batch]
            ids = torch.tensor(rows)
            logits = model(input_ids=ids).logits[:, :-1].float()
            picked = torch.log_softmax(logits, dim=-1).gather(2, ids[:, 1:, None])[..., 0]
            for row, index in enumerate(batch):
                found[index] = [float(value) for value in picked[row, : len(prompts[index]) - 1]]
    return found


def batches(lengths: Sequence[int]) -> list[list[int]]:
    """Return the indices of prompts in batches of like lengths, of at most `BATCH_TOKENS` with padding."""
    found: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda index: lengths[index]):
        if not found or (len(found[-1]) + 1) * lengths[index] > BATCH_TOKENS:
            found.append([])
        found[-1].append(index)
    return found
