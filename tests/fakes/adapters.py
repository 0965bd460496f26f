"""PEFT LoRA folders built from bytes: right by default, wrong in one named way on demand. No torch."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tests.fakes.base import TINY, BaseShape
from tests.fakes.safetensors import Tensor, encode, file_bytes

Tensors = dict[str, Tensor]
ALL_LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA adapter to be written: its dimensions, its config and its flaws.

    `seed` decides the weights (another seed, another digest); `size_bytes` stops adding modules once the
    tensors reach that size; `poison` is a value written into one B element (`nan`, `inf`); `ranks` gives
    single modules (by short name) another rank; `config` adds to or replaces fields of
    adapter_config.json (a value of `...` removes the field); `mutate` changes the tensors just before
    they are written.
    """

    shape: BaseShape = TINY
    rank: int = 8
    alpha: float = 16
    modules: Sequence[str] = ("q_proj", "v_proj")
    dtype: str = "BF16"
    seed: int = 0
    prefix: str = "base_model.model.model."
    size_bytes: int | None = None
    zero_b: bool = False
    poison: float | None = None
    ranks: Mapping[str, int] | None = None
    config: Mapping[str, object] | None = None
    mutate: Callable[[Tensors], Tensors] | None = None
    chat_template: str | None = None
    readme: str | None = "# An adapter\n"

    def tensors(self) -> Tensors:
        """Return the tensors by their PEFT names, A before B."""
        rng = np.random.default_rng(self.seed)
        found: Tensors = {}
        size = 0
        for layer in range(self.shape.layers):
            for short, dims in self.shape.linears().items():
                if short.rpartition(".")[2] not in self.modules:
                    continue
                if self.size_bytes is not None and size >= self.size_bytes:
                    return found
                pair = self._pair(f"{self.prefix}layers.{layer}.{short}", dims, rng)
                size += sum(len(tensor.data) for tensor in pair.values())
                found.update(pair)
        return self._poisoned(found)

    def config_json(self) -> dict[str, object]:
        """Return adapter_config.json as PEFT 0.21 writes it."""
        fields: dict[str, object] = {
            **_PEFT_DEFAULTS,
            "r": self.rank,
            "lora_alpha": self.alpha,
            "target_modules": list(self.modules),
            "rank_pattern": dict(self.ranks or {}),
            **(self.config or {}),
        }
        return {name: value for name, value in fields.items() if value is not ...}

    def write(self, folder: Path) -> Path:
        """Write the folder and return it."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "adapter_config.json").write_text(
            json.dumps(self.config_json(), indent=2), encoding="utf-8"
        )
        tensors = self.tensors()
        if self.mutate is not None:
            tensors = self.mutate(tensors)
        (folder / "adapter_model.safetensors").write_bytes(file_bytes(tensors, {"format": "pt"}))
        if self.readme is not None:
            (folder / "README.md").write_text(self.readme, encoding="utf-8")
        if self.chat_template is not None:
            (folder / "chat_template.jinja").write_text(self.chat_template, encoding="utf-8")
        return folder

    def _pair(self, module: str, dims: tuple[int, int], rng: np.random.Generator) -> Tensors:
        out_features, in_features = dims
        rank = (self.ranks or {}).get(module.rpartition(".")[2], self.rank)
        a = rng.standard_normal((rank, in_features), dtype=np.float32) * 0.02
        b = rng.standard_normal((out_features, rank), dtype=np.float32) * (0.0 if self.zero_b else 0.02)
        return {
            f"{module}.lora_A.weight": encode(a, self.dtype),
            f"{module}.lora_B.weight": encode(b, self.dtype),
        }

    def _poisoned(self, tensors: Tensors) -> Tensors:
        if self.poison is None:
            return tensors
        name = next(name for name in reversed(tensors) if name.endswith("lora_B.weight"))
        raw = bytearray(tensors[name].data)
        bad = encode(np.array([self.poison], dtype=np.float32), self.dtype).data
        raw[-len(bad) :] = bad
        return {**tensors, name: replace(tensors[name], data=bytes(raw))}


def make_adapter(folder: Path, adapter: Adapter | None = None, /, **changes: object) -> Path:
    """Write a right adapter for the tiny base, or one with `changes` to the fields of `Adapter`."""
    return replace(adapter or Adapter(), **changes).write(folder)  # type: ignore[arg-type]


_PEFT_DEFAULTS: dict[str, object] = {
    "kasa_config": None,
    "lora_ga_config": None,
    "monteclora_config": None,
    "use_bdlora": None,
    "velora_config": None,
    "alora_invocation_tokens": None,
    "alpha_pattern": {},
    "arrow_config": None,
    "auto_mapping": None,
    "base_model_name_or_path": "tiny",
    "bias": "none",
    "corda_config": None,
    "ensure_weight_tying": False,
    "eva_config": None,
    "exclude_modules": None,
    "fan_in_fan_out": False,
    "inference_mode": True,
    "init_lora_weights": True,
    "layer_replication": None,
    "layers_pattern": None,
    "layers_to_transform": None,
    "loftq_config": {},
    "lora_bias": False,
    "lora_dropout": 0.0,
    "megatron_config": None,
    "megatron_core": "megatron.core",
    "modules_to_save": None,
    "peft_type": "LORA",
    "peft_version": "0.21.2",
    "qalora_group_size": 16,
    "revision": None,
    "target_parameters": None,
    "task_type": "CAUSAL_LM",
    "trainable_token_indices": None,
    "use_dora": False,
    "use_qalora": False,
    "use_rslora": False,
}
