"""The loss on rows of the user's, before and after: what a merge costs where it matters.

Owns the sum. The rows are rendered as training renders them, and only what is learnt of them counts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from train.epoch.encoding import Example

LARGE_RISE = 0.01
"""A loss that is more than this share higher than before is told as a warning; also of what is lost."""
ROWS = 256
_LONGEST = 2_048


@dataclass(frozen=True, slots=True)
class Losses:
    """Mean losses (nats per learnt token) over `rows` rows with `tokens` learnt tokens of `file`."""

    file: str
    rows: int
    tokens: int
    base: float
    before: float
    after: float = math.nan


def read_examples(path: Path, base: Path) -> tuple[Example, ...]:
    """Return the first `ROWS` rows of a file of supervised rows, rendered with the base's template.

    Raises: UsageError: naming file and row.
    """
    from train.epoch.encoding import load_examples
    from train.model.loading import load_tokenizer

    return load_examples(path, load_tokenizer(base), max_length=_LONGEST).items[:ROWS]


def mean_loss(model: Any, examples: Sequence[Example]) -> float:
    """Return the mean loss over the learnt tokens, one row at a time."""
    import torch

    total = 0.0
    with torch.inference_mode():
        for example in examples:
            logits = model(torch.tensor([example.input_ids])).logits[0, :-1].float()
            labels = torch.tensor(example.labels[1:])
            total += float(torch.nn.functional.cross_entropy(logits, labels, reduction="sum"))
    return total / max(1, count(examples))


def count(examples: Sequence[Example]) -> int:
    """Return the learnt tokens; nothing predicts the first one of a row."""
    return sum(sum(label != -100 for label in example.labels[1:]) for example in examples)
