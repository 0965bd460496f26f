"""The LoRA of a file: its tensors as A/B pairs, each held against the config, the base and the limits.

Owns the naming rules of vLLM's loader (`vllm/lora/utils.py: parse_fine_tuned_lora_name`) and what it would
apply silently wrong or not at all. Pure: values in, a verdict out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from registry.errors import InvalidAdapter
from registry.validation.architectures import INPUT_EMBEDDING, OUTPUT_EMBEDDING
from registry.validation.tensors import SCANNABLE, TensorInfo

PREFIX = "base_model.model."
"""What PEFT puts before the base's own name of a module."""

# PEFT saves the whole matrix of a targeted embedding beside its LoRA; vLLM skips these two by name.
_COPIES = (f".{INPUT_EMBEDDING}.base_layer.weight", f".{OUTPUT_EMBEDDING}.base_layer.weight")
# What save_embedding_layers="auto" adds where the vocabulary was resized, or the embedding is a target.
_WHOLE = tuple(
    f".{name}.weight"
    for name in (INPUT_EMBEDDING, OUTPUT_EMBEDDING, "wte", "embed_in", "embed_out", "word_embeddings")
)
_EXPERTS = (".experts", ".experts.base_layer")
# How the name of a LoRA tensor ends -> (its side, whether it is an embedding's).
_SUFFIXES = {
    ".lora_A.weight": ("A", False),
    ".lora_embedding_A": ("A", True),
    ".lora_B.weight": ("B", False),
    ".lora_embedding_B": ("B", True),
}

# A part of a tensor's name -> (what it is, what to do).
_STRANGERS = (
    (
        "lora_magnitude_vector",
        "belongs to DoRA",
        "make it a plain LoRA (`wardrobe train merge DIR OUT --as lora`) or train without DoRA",
    ),
    ("trainable_tokens", "belongs to trained tokens", "train with LoRA on embed_tokens instead"),
    ("ia3_", "belongs to IA3", "train a LoRA adapter"),
    ("lora_E", "belongs to AdaLoRA", "train a LoRA adapter"),
    ("modules_to_save", "is a whole module", "train without modules_to_save"),
    (".bias", "is a bias", "train again with bias='none'"),
    (".lora_A.", "carries an adapter's name after lora_A", "save it with PEFT's save_pretrained"),
    (".lora_B.", "carries an adapter's name after lora_B", "save it with PEFT's save_pretrained"),
)


@dataclass(frozen=True, slots=True)
class LoraPair:
    """One module's A and B; `module` is the name that vLLM looks up, `embedding` its other layout."""

    module: str
    a: TensorInfo
    b: TensorInfo
    embedding: bool

    @property
    def rank(self) -> int:
        """The rank that the tensors have (times the experts, for fused ones)."""
        return self.a.shape[0]

    @property
    def dimensions(self) -> tuple[int, int]:
        """(out_features, in_features), to be compared with the base's weight."""
        features = (self.b.shape[0], self.a.shape[1])
        return (features[1], features[0]) if self.embedding else features

    @property
    def is_fused_experts(self) -> bool:
        """Whether it stands for all experts of a layer in one pair."""
        return self.module.endswith(_EXPERTS)

    @property
    def pattern_name(self) -> str:
        """The name that `rank_pattern` and `alpha_pattern` are matched with: fused experts' parameter."""
        if self.module.endswith(".experts.base_layer"):
            return self.module.removesuffix("base_layer") + "gate_up_proj"
        return f"{self.module}.down_proj" if self.module.endswith(".experts") else self.module


@dataclass(frozen=True, slots=True)
class Lora:
    """Every pair of a file, sorted by module, and the whole embeddings beside them that vLLM skips."""

    pairs: tuple[LoraPair, ...]
    copies: tuple[TensorInfo, ...]

    @property
    def leaves(self) -> tuple[str, ...]:
        """The modules' short names, sorted."""
        return tuple(sorted({pair.module.rpartition(".")[2] for pair in self.pairs}))


def pair_tensors(tensors: Iterable[TensorInfo], subject: str) -> Lora:
    """Pair the tensors by module.

    Raises: InvalidAdapter: reason `modules` for a tensor that vLLM's loader does not know, a missing half, a
    module named twice, or none at all; `shape` for a tensor that is no LoRA matrix.
    """
    halves: dict[tuple[str, bool], dict[str, TensorInfo]] = {}
    copies: list[TensorInfo] = []
    for tensor in tensors:
        _check_dtype(tensor, subject)
        if tensor.name.endswith(_COPIES):
            copies.append(tensor)
            continue
        if tensor.name.endswith(_WHOLE):
            raise _whole_embedding(tensor, subject)
        module, side, embedding = _parse_name(tensor.name, subject)
        _check_matrix(tensor, subject)
        if side in halves.setdefault((module, embedding), {}):
            fact = f"two tensors are {side} of {module} ({tensor.name})"
            raise InvalidAdapter(subject, fact, "save the adapter again with PEFT", reason="modules")
        halves[module, embedding][side] = tensor
    if not halves:
        fact = "the file holds no LoRA tensor, so it would change nothing"
        raise InvalidAdapter(subject, fact, "train with target_modules that the base has", reason="modules")
    pairs = (_pair(module, embedding, found, subject) for (module, embedding), found in halves.items())
    return Lora(tuple(sorted(pairs, key=lambda pair: pair.module)), tuple(copies))


def module_name(tensor_name: str, suffix: str) -> str:
    """Return the module that a tensor named `…<suffix>` belongs to, without PEFT's prefix."""
    module = tensor_name.removesuffix(suffix)
    # As vLLM does: all of them, where it begins with one.
    return module.replace(PREFIX, "") if module.startswith(PREFIX) else module


def split_name(tensor_name: str) -> tuple[str, str] | None:
    """Return a tensor's module and the rest of its name, None for one that belongs to no LoRA."""
    for suffix in (*_SUFFIXES, ".base_layer.weight"):
        if tensor_name.endswith(suffix):
            return module_name(tensor_name, suffix), suffix
    return None


def _parse_name(name: str, subject: str) -> tuple[str, str, bool]:
    for suffix, (side, embedding) in _SUFFIXES.items():
        if name.endswith(suffix):
            return module_name(name, suffix), side, embedding
    what, remedy = "is not a LoRA tensor", "save the adapter with PEFT's save_pretrained"
    for mark, found, way_out in _STRANGERS:
        if mark in name:
            what, remedy = found, way_out
            break
    raise InvalidAdapter(
        subject, f"tensor {name} {what}; vLLM loads only LoRA A and B", remedy, reason="modules"
    )


def _whole_embedding(tensor: TensorInfo, subject: str) -> InvalidAdapter:
    fact = (
        f"tensor {tensor.name} {list(tensor.shape)} is a whole embedding saved beside the LoRA; vLLM loads "
    )
    fact += "only LoRA A and B"
    remedy = (
        "save again with save_pretrained(…, save_embedding_layers=False) if no token was added; an adapter "
        "that needs new tokens needs a base with them: merge it, or train without resize_token_embeddings"
    )
    return InvalidAdapter(subject, fact, remedy, reason="modules")


def _check_dtype(tensor: TensorInfo, subject: str) -> None:
    if tensor.dtype not in SCANNABLE:
        fact = f"tensor {tensor.name} is {tensor.dtype}; an adapter's may be {', '.join(sorted(SCANNABLE))}"
        raise InvalidAdapter(subject, fact, "save it in bfloat16 or float32", reason="shape")


def _check_matrix(tensor: TensorInfo, subject: str) -> None:
    if len(tensor.shape) != 2 or 0 in tensor.shape:
        fact = f"tensor {tensor.name} has the shape {list(tensor.shape)}, not two dimensions of at least 1"
        remedy = "gather the sharded parameters (ZeRO-3, FSDP) before saving"
        raise InvalidAdapter(subject, fact, remedy, reason="shape")


def _pair(module: str, embedding: bool, found: Mapping[str, TensorInfo], subject: str) -> LoraPair:
    if len(found) == 1:
        (side,) = found
        missing = "B" if side == "A" else "A"
        fact = f"{module} has lora_{side} but no lora_{missing}"
        raise InvalidAdapter(subject, fact, "save the adapter again, whole", reason="modules")
    pair = LoraPair(module, found["A"], found["B"], embedding)
    if pair.a.shape[0] != pair.b.shape[1]:
        fact = f"{module}: A {list(pair.a.shape)} and B {list(pair.b.shape)} do not share a rank"
        raise InvalidAdapter(subject, fact, "save the adapter again, whole", reason="shape")
    return pair
