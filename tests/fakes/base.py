"""A base model folder in miniature: what `read_base` reads, and nothing that could run.

The weights are a sparse file (a true header, then a hole), so a base of any width costs a few kilobytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from registry.records import BaseModelInfo
from tests.fakes.safetensors import TensorSpec, header_bytes

CHAT_TEMPLATE = "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"


@dataclass(frozen=True, slots=True)
class BaseShape:
    """The dimensions of a Llama-like model."""

    hidden: int = 64
    kv: int = 32
    intermediate: int = 128
    layers: int = 2
    vocab: int = 256

    def linears(self) -> dict[str, tuple[int, int]]:
        """Return (out_features, in_features) of one layer's linear modules, by their short names."""
        return {
            "self_attn.q_proj": (self.hidden, self.hidden),
            "self_attn.k_proj": (self.kv, self.hidden),
            "self_attn.v_proj": (self.kv, self.hidden),
            "self_attn.o_proj": (self.hidden, self.hidden),
            "mlp.gate_proj": (self.intermediate, self.hidden),
            "mlp.up_proj": (self.intermediate, self.hidden),
            "mlp.down_proj": (self.hidden, self.intermediate),
        }

    def modules(self, *, prefix: str = "model.", tied: bool = True) -> dict[str, tuple[int, int]]:
        """Return every linear and embedding module by its full name, as (out_features, in_features)."""
        found = {
            f"{prefix}layers.{layer}.{short}": dims
            for layer in range(self.layers)
            for short, dims in self.linears().items()
        }
        found[f"{prefix}embed_tokens"] = (self.vocab, self.hidden)
        if not tied:
            found["lm_head"] = (self.vocab, self.hidden)
        return found


TINY = BaseShape()
# SmolLM2-135M's: rank 32 on every linear module in bf16 makes an adapter of 19.5 MB.
SMOLLM2 = BaseShape(hidden=576, kv=192, intermediate=1536, layers=30, vocab=49152)


def make_base(
    folder: Path,
    shape: BaseShape = TINY,
    *,
    prefix: str = "model.",
    tied: bool = True,
    shards: int = 1,
    config: Mapping[str, object] | None = None,
    chat_template: str | None = CHAT_TEMPLATE,
) -> Path:
    """Write a base model folder and return it; `config` adds to or replaces config.json's fields."""
    folder.mkdir(parents=True, exist_ok=True)
    _write_json(folder / "config.json", {**_config(shape, tied=tied), **(config or {})})
    _write_json(folder / "tokenizer.json", _TOKENIZER)
    tokenizer_config: dict[str, object] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|end|>",
    }
    if chat_template is not None:
        tokenizer_config["chat_template"] = chat_template
    _write_json(folder / "tokenizer_config.json", tokenizer_config)
    write_base_weights(folder, _weights(shape, prefix=prefix, tied=tied), shards=shards)
    return folder


def write_base_weights(folder: Path, weights: Mapping[str, TensorSpec], *, shards: int = 1) -> None:
    """Write `model.safetensors`, or `shards` files with their index."""
    names = list(weights)
    if shards == 1:
        write_sparse(folder / "model.safetensors", weights)
        return
    index: dict[str, str] = {}
    for number in range(shards):
        part = {name: weights[name] for name in names[number::shards]}
        file = f"model-{number + 1:05d}-of-{shards:05d}.safetensors"
        write_sparse(folder / file, part)
        index.update(dict.fromkeys(part, file))
    _write_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": index})


def write_sparse(path: Path, weights: Mapping[str, TensorSpec]) -> None:
    """Write a safetensors file whose tensors are a hole of zeros."""
    header = header_bytes(weights, metadata={"format": "pt"})
    with path.open("wb") as file:
        file.write(header)
        file.truncate(len(header) + sum(spec.size for spec in weights.values()))


def base_record(
    folder: Path, shape: BaseShape = TINY, *, name: str = "tiny", tied: bool = True
) -> BaseModelInfo:
    """Return the record of a fake base without reading any folder; its fingerprint is made up."""
    return BaseModelInfo(
        name=name,
        path=folder,
        fingerprint="sha256:" + "b" * 64,
        chat_template_sha256=None,
        modules=shape.modules(tied=tied),
    )


def _weights(shape: BaseShape, *, prefix: str, tied: bool) -> dict[str, TensorSpec]:
    weights = {
        f"{name}.weight": TensorSpec("BF16", dims)
        for name, dims in shape.modules(prefix=prefix, tied=tied).items()
    }
    weights[f"{prefix}norm.weight"] = TensorSpec("BF16", (shape.hidden,))
    for layer in range(shape.layers):
        weights[f"{prefix}layers.{layer}.input_layernorm.weight"] = TensorSpec("BF16", (shape.hidden,))
    return weights


def _config(shape: BaseShape, *, tied: bool) -> dict[str, object]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": shape.hidden,
        "intermediate_size": shape.intermediate,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 4 * shape.kv // shape.hidden or 1,
        "vocab_size": shape.vocab,
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": tied,
        "torch_dtype": "bfloat16",
        "transformers_version": "5.19.0",
    }


_TOKENIZER: dict[str, object] = {
    "version": "1.0",
    "truncation": None,
    "padding": None,
    "added_tokens": [],
    "normalizer": None,
    "pre_tokenizer": {"type": "Whitespace"},
    "post_processor": None,
    "decoder": None,
    "model": {"type": "WordLevel", "vocab": {"<unk>": 0, "<|end|>": 1, "hello": 2}, "unk_token": "<unk>"},
}


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2), encoding="utf-8")
