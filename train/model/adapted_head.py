"""An adapted `lm_head` in training: TRL's fused head would leave it out, so its positions are scored here.

Owns two corrections of TRL 1.16, which reads `lm_head.weight` and therefore refuses an adapter on the head.
`plain_head` lets it build its trainer, `score_through_head` makes the trainer's scores those of the head with
its adapter. Invariant: no trainer is handed on whose head is adapted and not scored so (`finish` does it).
"""

from __future__ import annotations

from types import MethodType
from typing import Any

_ROWS = 256
"""Positions whose logits are in memory at once: 128 MiB for a vocabulary of 128 thousand."""


def plain_head(model: Any) -> Any:
    """Return `model`, whose `get_output_embeddings` passes an adapter on the head over."""

    def below(self: Any) -> Any:
        head = type(self).get_output_embeddings(self)
        return getattr(head, "base_layer", head)

    model.get_output_embeddings = MethodType(below, model)
    return model


def score_through_head(model: Any) -> None:
    """Make the fused scores of a PEFT model go through its adapted head; nothing where it has none."""
    base = model.get_base_model()
    head = type(base).get_output_embeddings(base)
    if not hasattr(head, "base_layer"):
        return
    fused = base.forward

    def forward(self: Any, *args: Any, fused_lm_head: bool = False, **kwargs: Any) -> Any:
        if not fused_lm_head:
            return fused(*args, **kwargs)
        from trl.trainer import utils

        # NOTE: TRL looks the function up when it scores; everything around it (masks, scales, outputs) stays
        # TRL's. Remove when TRL scores an adapted head.
        kernel = utils._ChunkedLogProbFunction  # noqa: SLF001
        utils._ChunkedLogProbFunction = _Through(type(self).get_output_embeddings(self))  # noqa: SLF001
        try:
            return fused(*args, fused_lm_head=True, **kwargs)
        finally:
            utils._ChunkedLogProbFunction = kernel  # noqa: SLF001

    base.forward = MethodType(forward, base)


class _Through:
    """Scores hidden states by calling the head, in the place of TRL's kernel and with its arguments."""

    def __init__(self, head: Any) -> None:
        self._head = head

    def apply(
        self,
        hidden: Any,
        _weight: Any,
        _bias: Any,
        targets: Any,
        temperature: float,
        _chunk: int,
        softcap: float | None = None,
        scale: float = 1.0,
        outputs: tuple[str, ...] = (),
    ) -> tuple[Any, ...]:
        """Return log-probability, entropy, log Σp², mean logit and top-1 of each position ([N] or None)."""
        import torch
        from torch.utils.checkpoint import checkpoint

        def scores(states: Any, wanted: Any) -> tuple[Any, ...]:
            logits = self._head(states).float() * scale
            if softcap is not None:
                logits = softcap * torch.tanh(logits / softcap)
            return _statistics(logits / temperature, wanted)

        parts = [
            checkpoint(scores, hidden[at : at + _ROWS], targets[at : at + _ROWS], use_reentrant=False)
            for at in range(0, max(1, hidden.shape[0]), _ROWS)
        ]
        found = dict(zip(_NAMES, (torch.cat(column) for column in zip(*parts, strict=True)), strict=True))
        return tuple(value if name in {"log_probs", *outputs} else None for name, value in found.items())


_NAMES = ("log_probs", "entropy", "log_sum_sq_probs", "mean_logits", "is_top1")


def _statistics(logits: Any, wanted: Any) -> tuple[Any, ...]:
    import torch

    log_z = torch.logsumexp(logits, dim=-1)
    picked = logits.gather(-1, wanted[:, None])[:, 0]
    with torch.no_grad():
        squares = torch.logsumexp(2 * logits, dim=-1) - 2 * log_z
        means, first = logits.mean(dim=-1), logits.argmax(dim=-1) == wanted
    entropy = log_z - (torch.softmax(logits, dim=-1) * logits).sum(dim=-1)
    return picked - log_z, entropy, squares, means, first
