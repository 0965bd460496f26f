"""Whether two models give the same answers: their logits on the same prompts, in fp32.

Owns the probe prompts and the figures. Computing in fp32 shows what the weights are, free of the noise that
bf16 activations add.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from train.dataset.records import RowMessage
from train.rendering.examples import prompt_ids

if TYPE_CHECKING:
    from torch import Tensor

Logits = Sequence["Tensor"]

PROBES = (
    "What is the capital of France?",
    "Write one sentence about the sea.",
    "Translate to German: The weather is fine today.",
    "List three uses of a paper clip.",
    "def fibonacci(n):",
    "A patient has had a cough and a fever for three days. What may it be?",
    "My order 4711 has not arrived. Please help me!",
    "2, 3, 5, 7, 11,",
)


@dataclass(frozen=True, slots=True)
class LogitParity:
    """How far a candidate's logits are from a reference's, over all positions of all probes.

    Differences are absolute, of logits; `kl` is the mean of KL(reference ‖ candidate) in nats;
    `top1` the share of positions with the same first choice. `effect` is the mean difference between
    the reference and the base (what training did), `lost` the candidate's as a share of it: 0 is a perfect
    copy. `tolerance` is the mean KL divergence that was allowed, None where something else was the limit.
    """

    probes: int
    positions: int
    max_difference: float
    mean_difference: float
    kl: float
    top1: float
    effect: float
    lost: float
    tolerance: float | None = None


def probe_ids(folder: Path) -> list[list[int]]:
    """Return the probes' token ids, as the chat template of the model in `folder` renders them."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    if tokenizer.chat_template is None:
        return [list(tokenizer(probe).input_ids) for probe in PROBES]
    return [prompt_ids([RowMessage("user", probe, learn=False)], tokenizer) for probe in PROBES]


def probe_logits(model: Any, ids: Sequence[Sequence[int]]) -> list[Tensor]:
    """Return per probe the logits at every position: (tokens, vocabulary) in fp32."""
    import torch

    with torch.inference_mode():
        return [model(torch.tensor([list(one)])).logits[0].float().cpu() for one in ids]


def compare(reference: Logits, candidate: Logits, base: Logits) -> LogitParity:
    """Return how far `candidate` is from `reference`; `base` says how much there was to copy."""
    pairs = list(zip(reference, candidate, strict=True))
    positions = sum(len(one) for one in reference)
    values = sum(one.numel() for one in reference)
    difference = sum(float((one - other).abs().double().sum()) for one, other in pairs)
    effect = sum(
        float((one - other).abs().double().sum()) for one, other in zip(reference, base, strict=True)
    )
    return LogitParity(
        probes=len(pairs),
        positions=positions,
        max_difference=max(float((one - other).abs().max()) for one, other in pairs),
        mean_difference=difference / values,
        kl=sum(_divergence(one, other) for one, other in pairs) / positions,
        top1=sum(int((one.argmax(-1) == other.argmax(-1)).sum()) for one, other in pairs) / positions,
        effect=effect / values,
        lost=(difference / values) / (effect / values) if effect else math.inf,
    )


def _divergence(reference: Tensor, candidate: Tensor) -> float:
    """Return the KL divergence, summed over the positions."""
    import torch

    expected = torch.log_softmax(reference.double(), dim=-1)
    found = torch.log_softmax(candidate.double(), dim=-1)
    return max(0.0, float((expected.exp() * (expected - found)).sum()))
