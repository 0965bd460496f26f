"""Bases by the name that a config gives: headers with the modules that the named model's architecture has.

The weights are holes of zeros (tests.fakes.base): `train check` reads names and shapes only. Architectures
are transformers' own, built on the meta device with at most eight layers; models that bring code of their
own have their modules' names written down here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from tests.fakes.base import make_base, write_base_weights
from tests.fakes.safetensors import TensorSpec

LAYERS = 8

# The first pattern that is found in the lower-case name wins.
_ARCHITECTURES: tuple[tuple[str, str], ...] = (
    ("llama-?4|llama4", "llama4"), ("llama-3.2-11b-vision|llama3_2_vision", "mllama"), ("llava", "llava"),
    ("qwen3.5.*a(3|10)b", "qwen3_5_moe"), ("qwen3.5", "qwen3_5"), ("qwen3-next", "qwen3_next"),
    ("qwen3-vl.*a3b", "qwen3_vl_moe"), ("qwen3-vl", "qwen3_vl"), ("qwen3.*a3b", "qwen3_moe"),
    ("qwen2.5-vl", "qwen2_5_vl"), ("qwen2-vl", "qwen2_vl"), ("qwen1.5-moe", "qwen2_moe"),
    ("qwen-7b", "remote-qwen"), ("qwen3|mimo|plano|skywork", "qwen3"), ("qwen|deepcoder", "qwen2"),
    ("gemma-4-e2b", "gemma4"), ("gemma-4", "gemma4"), ("gemma-3n", "gemma3n"),
    ("gemma-3-(1b|270m)", "gemma3_text"), ("gemma-3", "gemma3"), ("gemma-2|gemma2", "gemma2"),
    ("gemma", "gemma"), ("phi-?3|phi-?4", "phi3"), ("phi", "phi"), ("falcon-h1", "falcon_h1"),
    ("falcon-e", "llama"), ("falcon", "falcon"), ("pythia|redpajama", "gpt_neox"), ("gpt-j", "gptj"),
    ("gpt-oss", "gpt_oss"), ("cerebras-gpt|gpt2", "gpt2"), ("btlm", "remote-btlm"),
    ("replit", "remote-replit"), ("mpt", "mpt"), ("dbrx", "remote-dbrx"), ("stablelm", "stablelm"),
    ("starcoder2", "starcoder2"), ("jamba", "jamba"), ("mamba", "mamba"), ("command", "cohere2"),
    ("deepseek-v2", "deepseek_v2"), ("deepseek-v4", "deepseek_v4"), ("deepseek", "deepseek_v3"),
    ("glm-4.6v", "glm46v"), ("glm-4.7-flash", "glm4_moe_lite"), ("glm-4.5", "glm4_moe"),
    ("glm-5", "glm_moe_dsa"), ("glm-4", "glm4"), ("granite-4", "granitemoehybrid"),
    ("hunyuan", "hunyuan_v1_dense"), ("internvl", "internvl"), ("kimi-linear", "kimi_linear"),
    ("lfm2-vl", "lfm2_vl"), ("lfm2-8b", "lfm2_moe"), ("lfm2", "lfm2"), ("nemotron-3", "nemotron_h"),
    ("nemotron-mini", "nemotron"), ("olmo-3", "olmo3"), ("seed-oss", "seed_oss"), ("smolvlm", "smolvlm"),
    ("smollm3", "smollm3"), ("trinity", "afmoe"), ("apertus", "apertus"), ("afm-", "arcee"),
    ("paddleocr", "paddleocr_vl"), ("minimax-m2", "minimax_m2"), ("voxtral", "voxtral"),
    ("mistral-small-4", "mistral4"), ("ministral-3", "mistral3"), ("pixtral", "llava"),
    ("mistral-small-3.1|mistral-medium|magistral-small-2509", "mistral3"),
    ("mixtral|zephyr-141b", "mixtral"), ("mistral|magistral|devstral|ministral|zephyr", "mistral"),
    ("moss", "qwen3_vl"),
)  # fmt: skip
_REMOTE: Mapping[str, tuple[str, ...]] = {
    "remote-qwen": ("h.{}.attn.c_attn", "h.{}.attn.c_proj", "h.{}.mlp.w1", "h.{}.mlp.w2"),
    "remote-btlm": ("h.{}.attn.c_attn", "h.{}.mlp.c_fc", "h.{}.mlp.c_proj"),
    "remote-replit": ("blocks.{}.attn.Wqkv", "blocks.{}.ffn.mlp_up", "blocks.{}.ffn.mlp_down"),
    "remote-dbrx": (
        "blocks.{}.norm_attn_norm.attn.q_proj", "blocks.{}.norm_attn_norm.attn.k_proj",
        "blocks.{}.norm_attn_norm.attn.v_proj", "blocks.{}.norm_attn_norm.attn.out_proj",
        "blocks.{}.ffn.router.layer", "blocks.{}.ffn.experts.mlp.0.w1",
    ),
}  # fmt: skip
# What an architecture's own defaults leave open.
_OPEN: Mapping[str, Mapping[str, Any]] = {
    "hunyuan_v1_dense": {"head_dim": 128},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 4, "num_hidden_layers": LAYERS},
    "nemotron": {"num_key_value_heads": 8},
    "smolvlm": {"text_config": {"model_type": "llama", "pad_token_id": 2}, "pad_token_id": 2},
}
# Needs a package for pictures; its language model alone has the same names below another prefix.
_TEXT_PART = {"gemma3n": "gemma3n_text"}
_WORDS = ["what", "is", "item", "a", "box", "of", "screws", "say", "yes", "no"] + [
    str(number) for number in range(400)
]


def architecture_of(model: str) -> str:
    """Return the model type of a model's name; Llama's where nothing is known."""
    name = model.lower()
    return next((kind for pattern, kind in _ARCHITECTURES if re.search(pattern, name)), "llama")


def make_bases(folder: Path, model: str) -> Iterator[Path]:
    """Write bases with the modules of a model and yield their folders: with the names that its modules have
    in memory, and with those that older files of the same architecture have.
    """
    kind = architecture_of(model)
    shapes, written = module_shapes(kind)
    for form, names in (("module", shapes), ("file", written)):
        place = folder / f"{kind}-{form}"
        if names and not place.exists():
            _write(place, kind, names)
        if names:
            yield place


@cache
def module_shapes(kind: str) -> tuple[dict[str, tuple[int, ...]], dict[str, tuple[int, ...]]]:
    """Return the weights of an architecture by the names in memory and, where they differ, in older files."""
    if kind in _REMOTE:
        return {
            f"transformer.{name}".format(at): (64, 64) for at in range(LAYERS) for name in _REMOTE[kind]
        }, {}
    model = _build(_TEXT_PART.get(kind, kind))
    shapes = {name.removesuffix(".weight"): tuple(value.shape) for name, value in model.state_dict().items()
              if name.endswith(".weight") and value.dim() == 2}  # fmt: skip
    if kind in _TEXT_PART:
        shapes = {re.sub("^model", "model.language_model", name): dims for name, dims in shapes.items()}
    older = {
        re.sub(r"^model\.language_model\.", "language_model.model.", name): dims
        for name, dims in shapes.items()
    }
    return shapes, older if older != shapes else {}


def _build(kind: str) -> Any:
    import torch
    import transformers

    config = transformers.AutoConfig.for_model(kind, **_OPEN.get(kind, {}))
    for part in (config, getattr(config, "text_config", None)):
        if part is not None and kind not in _TEXT_PART.values():
            _shorten(part)
    autos = [
        transformers.AutoModelForCausalLM,
        transformers.AutoModelForImageTextToText,
        transformers.AutoModel,
    ]
    if hasattr(config, "vision_config"):
        autos.reverse()
        autos.insert(0, transformers.AutoModelForImageTextToText)
    with torch.device("meta"):
        for auto in autos:
            if type(config) in auto._model_mapping:
                return auto.from_config(config)
    raise ValueError(f"{kind}: transformers has no model for it")


def _shorten(config: Any) -> None:
    """Keep the first layers; lists with an entry for each layer get as short."""
    layers = getattr(config, "num_hidden_layers", None)
    if not isinstance(layers, int) or layers <= LAYERS:
        return
    for name, value in list(vars(config).items()):
        if isinstance(value, list) and len(value) == layers:
            setattr(config, name, value[:LAYERS])
    config.num_hidden_layers = LAYERS


def _write(folder: Path, kind: str, shapes: Mapping[str, tuple[int, ...]]) -> None:
    make_base(folder, config={"model_type": kind, "architectures": ["LlamaForCausalLM"]})
    write_base_weights(folder, {f"{name}.weight": TensorSpec("BF16", dims) for name, dims in shapes.items()})
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    vocabulary = tokenizer["model"]["vocab"]
    for word in _WORDS:
        vocabulary.setdefault(word, len(vocabulary))
    path.write_text(json.dumps(tokenizer))
