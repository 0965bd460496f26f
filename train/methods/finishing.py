"""What TRL's trainers leave undone: the adapter's precision, an adapted head, a reference without noise.

Invariant: after `finish` every trained adapter weight is fp32, and the frozen reference adapter has no
dropout.
"""

from __future__ import annotations

from typing import Any

from train.model.adapted_head import score_through_head

REFERENCE = "ref"
"""TRL's name for the frozen copy of an adapter that a run starts with."""


def finish(trainer: Any) -> Any:
    """Return `trainer`, made ready."""
    from peft import PeftModel

    if isinstance(trainer.model, PeftModel):
        _restore_precision(trainer.model)
        score_through_head(trainer.model)
        _silence_reference(trainer.model)
    return trainer


def _restore_precision(model: Any) -> None:
    # NOTE: on a quantised base TRL 1.16 casts the adapter to bf16, where AdamW's small updates vanish.
    import torch

    for parameter in model.parameters():
        if parameter.requires_grad and parameter.dtype in {torch.bfloat16, torch.float16}:
            parameter.data = parameter.data.to(torch.float32)


def _silence_reference(model: Any) -> None:
    import torch

    if REFERENCE not in model.peft_config:
        return
    for module in model.modules():
        dropouts = getattr(module, "lora_dropout", None)
        if dropouts is not None and REFERENCE in dropouts:
            dropouts[REFERENCE] = torch.nn.Identity()
