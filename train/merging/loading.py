"""Models and adapters in memory, in fp32, from folders only.

Owns what PEFT would let pass in silence: tensors of an adapter's file that no module takes, and modules for
which the file has none. Invariant: the returned model computes what the adapter was trained to compute.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.errors import InvalidAdapter, UsageError
from registry.validation.identity import WEIGHTS_NAME
from train.merging.sources import MergeSource
from train.process.environment import OFFLINE
from train.process.silence import quiet

if TYPE_CHECKING:
    from torch import Tensor

_ADAPTER = "default"
_INITIAL = "initial"
_COPY = ".base_layer.weight"  # PEFT stores a targeted embedding whole, beside its LoRA


def load_model(folder: Path) -> Any:
    """Load the causal language model in `folder` in fp32: 4 bytes per parameter."""
    os.environ.update({name: os.environ.get(name, value) for name, value in OFFLINE.items()})
    import torch
    from transformers import AutoModelForCausalLM

    with quiet():
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    if getattr(model, "hf_quantizer", None) is not None:
        fact = "is quantised; its weights cannot be changed by a merge"
        raise UsageError(str(folder), fact, "use the same model in bf16, fp16 or fp32")
    return model.eval()


def load_adapted(model: Any, source: MergeSource) -> Any:
    """Put the adapter of `source` on `model`, which is modified, and return the PEFT model.

    Raises: InvalidAdapter: when it does not fit the model, or is not applied whole.
    """
    from peft import PeftConfig, PeftModel

    config = PeftConfig.from_pretrained(str(source.folder))
    if source.initial is not None:
        if config.use_dora:
            fact = "is a DoRA whose initialisation changed the base; --initial cannot take that out"
            raise InvalidAdapter(source.name, fact, "convert the model in training", reason="bad_config")
        config.init_lora_weights = True
    try:
        with quiet():
            adapted = PeftModel.from_pretrained(model, str(source.folder), _ADAPTER, config=config)
            if source.initial is not None:
                _subtract(adapted, config, source.initial)
    except (RuntimeError, ValueError, KeyError) as error:
        fact = f"does not load on the base: {str(error).strip().splitlines()[-1].strip()}"
        remedy = "give an adapter that was trained on the root's base"
        raise InvalidAdapter(source.name, fact, remedy, reason="base_mismatch") from error
    _check_whole(adapted, source)
    return adapted.eval()


def _subtract(adapted: Any, config: Any, initial: Path) -> None:
    """Take the adapter as it was before training out again: a second one, with its B negated."""
    from peft import set_peft_model_state_dict
    from safetensors.torch import load_file

    adapted.add_adapter(_INITIAL, config)
    tensors = load_file(initial / WEIGHTS_NAME)
    negated = {name: -tensor if "lora_B" in name else tensor for name, tensor in tensors.items()}
    set_peft_model_state_dict(adapted, negated, _INITIAL)
    adapted.base_model.set_adapter([_ADAPTER, _INITIAL])


def _check_whole(adapted: Any, source: MergeSource) -> None:
    from peft import get_peft_model_state_dict
    from safetensors import safe_open

    with quiet():
        taken: dict[str, Tensor] = get_peft_model_state_dict(adapted, adapter_name=_ADAPTER)
    with safe_open(source.folder / WEIGHTS_NAME, framework="numpy") as file:
        given = {name for name in file.keys() if not name.endswith(_COPY)}  # noqa: SIM118  no mapping
    known = {name for name in taken if not name.endswith(_COPY)}
    for names, fact in (
        (given - known, "tensors that no module of the base takes"),
        (known - given, "modules of its config without a tensor"),
    ):
        if names:
            found = f"has {len(names)} {fact} ({min(names)})"
            remedy = "save it again with PEFT's save_pretrained"
            raise InvalidAdapter(source.name, found, remedy, reason="modules")
