"""Names of tensors that a training wrapper left its own name in, read as the base's own names.

DistributedDataParallel, torch.compile, FSDP, checkpointing and classes of one's own put a part into every
name. vLLM compares whole names and would apply none of them (vllm#34186). Owns which parts are taken off;
pure. Invariant: a name that the base has is left alone, and a new name is always one that the base has.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from registry.validation.intake.modules import TOWERS, Modules
from registry.validation.lora import PREFIX, split_name

WRAPPERS = frozenset({
    "module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module",
    "_flat_param", "_ddp_module", "_engine", "_original_module",
})  # fmt: skip
"""Parts of names that wrappers of PyTorch, Lightning and DeepSpeed add; no model calls a module so."""


@dataclass(frozen=True, slots=True)
class Cleaning:
    """New names by the old ones, and the parts that were taken off, as they stood in the names."""

    names: Mapping[str, str] = field(default_factory=dict)
    taken_off: tuple[str, ...] = ()

    def warnings(self) -> list[str]:
        """Return the sentence for a person, if anything was renamed."""
        if not self.names:
            return []
        example = next(iter(self.names.values()))
        parts = " and ".join(f"`{part}.`" for part in self.taken_off[:3])
        fact = f"{len(self.names)} tensors bore a wrapper's name ({parts}), which vLLM would not apply"
        return [f"{fact}; it was taken off, so that they are stored as the base calls them ({example})"]


def clean_names(tensors: Iterable[str], base: Mapping[str, tuple[int, int]]) -> Cleaning:
    """Return how the tensors of an adapter are to be renamed for a base with the modules `base`.

    Where the base's shapes are unknown only the wrappers' own words are taken off.
    """
    modules = Modules(base)
    names: dict[str, str] = {}
    taken_off: dict[str, None] = {}
    strangers: dict[str, tuple[str, str]] = {}
    for tensor in tensors:
        split = split_name(tensor)
        if split is None or modules.knows(split[0]):
            continue
        module, suffix = split
        plain = unwrapped(module)
        if plain != module and (not base or modules.knows(plain)):
            names[tensor] = PREFIX + plain + suffix
            taken_off |= dict.fromkeys(part for part in module.split(".") if part in WRAPPERS)
        elif base:
            strangers[tensor] = (plain, suffix)
    prefix = _common_prefix(strangers.values(), modules)
    if prefix is not None:
        for tensor, (plain, suffix) in strangers.items():
            names[tensor] = PREFIX + plain.removeprefix(f"{prefix}.") + suffix
        taken_off[prefix] = None
    return Cleaning(names, tuple(taken_off))


def unwrapped(module: str) -> str:
    """Return the name of a module without the words of `WRAPPERS`, and without PEFT's prefix."""
    parts = (part for part in module.split(".") if part not in WRAPPERS)
    return ".".join(parts).replace(PREFIX, "")


def _common_prefix(strangers: Iterable[tuple[str, str]], modules: Modules) -> str | None:
    """Return the one part before the names of modules that the base has, None where there is not one."""
    found = {modules.prefix_of(plain) for plain, _ in strangers}
    prefix = found.pop() if len(found) == 1 else None
    # A tower's modules are not the language model's, even where the names end alike.
    return None if prefix is None or not TOWERS.isdisjoint(prefix.split(".")) else prefix
