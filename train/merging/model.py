"""Base plus adapter as one ordinary model folder.

Owns what of the base's folder goes with the weights, and the untying of a head that the adapter parts from
its embedding.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from registry.errors import InvalidAdapter
from registry.validation.chat_template import TEMPLATE_NAME
from train.process.silence import quiet

DTYPES = ("float32", "bfloat16", "float16")
# What transformers writes itself with the weights, or what belongs to the old ones.
_NOT_COPIED = frozenset({"config.json", "model.safetensors.index.json", "pytorch_model.bin.index.json"})
_COPIED = frozenset({".json", ".jinja", ".txt", ".model"})


def merge(adapted: Any, name: str) -> Any:
    """Return the plain model (fp32) with the adapter in its weights; `adapted` is used up.

    Raises: InvalidAdapter: for an adapter that has no merged form, or merges into NaN.
    """
    _untie(adapted)
    try:
        with quiet():
            return adapted.merge_and_unload(safe_merge=True)
    except (NotImplementedError, RuntimeError, ValueError) as error:
        fact = f"cannot be merged: {error}"
        raise InvalidAdapter(name, fact, "serve it as an adapter", reason="bad_config") from error


def save_merged(model: Any, dtype: str, base: Path, template: Path | None, out: Path) -> None:
    """Write `model` in `dtype` into the folder `out`, with the tokenizer of `base`.

    `template` is the adapter's folder where that may hold a chat template of its own, which then wins.
    """
    import torch

    with quiet():
        model.to(getattr(torch, dtype)).save_pretrained(out)
    for path in base.iterdir():
        if path.is_file() and path.suffix in _COPIED and path.name not in _NOT_COPIED:
            shutil.copyfile(path, out / path.name)
    if template is not None and (template / TEMPLATE_NAME).is_file():
        shutil.copyfile(template / TEMPLATE_NAME, out / TEMPLATE_NAME)


def _untie(adapted: Any) -> None:
    """Give the head weights of its own where only one of the tied two is adapted."""
    import torch

    inner = adapted.get_base_model()
    ends = (inner.get_input_embeddings(), inner.get_output_embeddings())
    if None in ends or not any(hasattr(end, "base_layer") for end in ends):
        return
    inputs, head = (getattr(end, "base_layer", end) for end in ends)
    if inputs.weight is head.weight:
        head.weight = torch.nn.Parameter(head.weight.detach().clone(), requires_grad=False)
        inner.config.tie_word_embeddings = False
