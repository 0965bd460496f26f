"""A plain LoRA as one GGUF file, which llama.cpp and Ollama put on a GGUF file of the base: no merge.

Owns llama.cpp's form of an adapter (its `convert_lora_to_gguf.py`): one pair `NAME.lora_a`, `NAME.lora_b` for
each module, scaled by alpha over the pair's own rank, with the rows of query and key in llama.cpp's order.
Invariant: what is written is read again, put on the base and compared (products.py).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.errors import InvalidAdapter, UsageError
from registry.validation.identity import WEIGHTS_NAME
from registry.validation.patterns import PatternTable
from registry.validation.peft import CONFIG_NAME, LoraConfig, parse_config
from train.merging.gguf.gguf_file import halved, interleaved

if TYPE_CHECKING:
    import numpy as np

ADAPTER_NAME = "adapter.gguf"
_PREFIX = "base_model.model."
# llama.cpp's name of the architecture, and whether it rotates positions in pairs (rows are reordered).
_ARCHITECTURES = {
    "LlamaForCausalLM": ("llama", True),
    "MistralForCausalLM": ("llama", True),
    "Qwen2ForCausalLM": ("qwen2", False),
    "Qwen3ForCausalLM": ("qwen3", False),
}


@dataclass(frozen=True, slots=True)
class _Shape:
    """What of the base's config decides names and order."""

    architecture: str
    pairs: bool
    blocks: int
    heads: int
    heads_kv: int
    tied: bool


def check_adapter(folder: Path, base: Path, subject: str) -> None:
    """Refuse what llama.cpp has no form for.

    Raises: UsageError: the base's architecture; InvalidAdapter: what is not a plain LoRA on linear modules.
    """
    shape, config = _shape(base), _config(folder, subject)
    init = config.fields.get("init_lora_weights", True)
    changed = isinstance(init, str) and init.lower() not in {"gaussian", "eva", "orthogonal"}
    if config.fields.get("use_dora") or changed:
        fact = f"is not a plain LoRA ({'DoRA' if config.fields.get('use_dora') else init})"
        remedy = "make it one first: `wardrobe train merge SOURCE LORA --as lora`, then give LORA"
        raise InvalidAdapter(subject, fact, remedy, reason="bad_config")
    for module in _modules(folder):
        leaf = module.rpartition(".")[2]
        if leaf == "embed_tokens" or (leaf == "lm_head" and shape.tied):
            fact = f"adapts {leaf}, which llama.cpp cannot adapt on a base with tied embeddings"
            raise InvalidAdapter(subject, fact, "use --as gguf, which merges it", reason="modules")


def write_adapter(folder: Path, base: Path, file: Path) -> Path:
    """Write the LoRA in `folder` (fp32) to the new `file`; the base in `base` gives names and order."""
    from gguf import GGUFType, GGUFWriter, Keys

    shape, config = _shape(base), _config(folder, str(folder))
    writer = GGUFWriter(file, shape.architecture)
    writer.add_type(GGUFType.ADAPTER)
    writer.add_string(Keys.Adapter.TYPE, "lora")
    writer.add_float32(Keys.Adapter.LORA_ALPHA, float(config.alpha))
    for name, a, b in _pairs(folder, config, shape):
        writer.add_tensor(f"{name}.lora_a", a)
        writer.add_tensor(f"{name}.lora_b", b)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def apply_adapter(model: Any, file: Path, base: Path) -> Any:
    """Return `model` (the base in fp32) with the differences of `file` added, as llama.cpp would add them."""
    import torch
    from gguf import GGUFReader

    shape, reader = _shape(base), GGUFReader(file)
    field = reader.get_field("adapter.lora.alpha")
    assert field is not None, "every adapter has it"
    alpha = float(field.parts[field.data[0]][0])
    tensors = {one.name: one.data for one in reader.tensors}
    targets = {_gguf_name(name.removesuffix(".weight"), shape): (name, one) for name, one in _weights(model)}
    for name, b in tensors.items():
        if not name.endswith(".lora_b"):
            continue
        stem = name.removesuffix(".lora_b")
        theirs, parameter = targets[stem]
        difference = (b @ tensors[f"{stem}.lora_a"]) * (alpha / b.shape[1])
        with torch.no_grad():
            parameter += torch.from_numpy(_ordered(difference, theirs, shape, halved))
    return model


def _pairs(folder: Path, config: LoraConfig, shape: _Shape) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    from safetensors.numpy import load_file

    tensors = _as_float32(load_file, folder / WEIGHTS_NAME)
    ranks, alphas = PatternTable(config.rank_pattern), PatternTable(config.alpha_pattern)
    for module in _modules(folder):
        a = tensors[f"{_PREFIX}{module}.lora_A.weight"]
        b = tensors[f"{_PREFIX}{module}.lora_B.weight"]
        rank, alpha = ranks.find(module, config.rank), alphas.find(module, config.alpha)
        scale = alpha / (math.sqrt(rank) if config.fields.get("use_rslora") else rank)
        # llama.cpp scales every pair by one alpha over the pair's rank; the rest goes into B.
        rest = scale * rank / config.alpha
        ordered = _ordered(b, f"{module}.weight", shape, interleaved)
        yield _gguf_name(module, shape), a, ordered if rest == 1 else ordered * rest


def _ordered(
    array: np.ndarray, weight: str, shape: _Shape, order: Callable[[np.ndarray, int], np.ndarray]
) -> np.ndarray:
    if shape.pairs and weight.endswith("q_proj.weight"):
        return order(array, shape.heads)
    return order(array, shape.heads_kv) if shape.pairs and weight.endswith("k_proj.weight") else array


def _gguf_name(module: str, shape: _Shape) -> str:
    from gguf import MODEL_ARCH, get_tensor_name_map

    names = get_tensor_name_map(MODEL_ARCH[shape.architecture.upper()], shape.blocks)
    found = names.get_name(f"{module}.weight", try_suffixes=(".weight",))
    return str(found)


def _weights(model: Any) -> Iterator[tuple[str, Any]]:
    return ((name, one) for name, one in model.named_parameters() if one.ndim == 2)


def _modules(folder: Path) -> list[str]:
    from safetensors import safe_open

    with safe_open(folder / WEIGHTS_NAME, framework="numpy") as file:
        names = sorted(file.keys())
    ends = (".lora_A.weight", ".lora_embedding_A")
    return [
        name.removeprefix(_PREFIX).removesuffix(end) for name in names for end in ends if name.endswith(end)
    ]


def _as_float32(load: Any, path: Path) -> dict[str, np.ndarray]:
    try:
        tensors = load(path)
    except (TypeError, KeyError):  # numpy has no bfloat16
        from safetensors.torch import load_file

        return {name: one.float().numpy() for name, one in load_file(path).items()}
    return {name: one.astype("float32") for name, one in tensors.items()}


def _config(folder: Path, subject: str) -> LoraConfig:
    return parse_config((folder / CONFIG_NAME).read_bytes(), subject)


def _shape(base: Path) -> _Shape:
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    named = (config.get("architectures") or [""])[0]
    if named not in _ARCHITECTURES:
        fact = f"has the architecture {named or 'none'}, whose adapters --as gguf-lora does not write"
        remedy = "run llama.cpp's own `python convert_lora_to_gguf.py --base BASE ADAPTER`"
        raise UsageError(base.name, fact, remedy, param="as")
    architecture, pairs = _ARCHITECTURES[named]
    heads = config["num_attention_heads"]
    return _Shape(
        architecture, pairs, config["num_hidden_layers"], heads, config.get("num_key_value_heads") or heads,
        bool(config.get("tie_word_embeddings", False)),
    )  # fmt: skip
