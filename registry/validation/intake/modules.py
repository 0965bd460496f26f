"""The base's modules by name, as an adapter's tensors may call them.

Owns the look-up: whole names, but for the nesting that vLLM maps by itself. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

# Checkpoints and transformers' classes of multimodal models nest the language model differently;
# vLLM maps the names. Where a base has such a part, names are compared without them.
_NESTING = frozenset({"model", "language_model", "text_model"})
TOWERS = frozenset({"visual", "vision_tower", "vision_model", "audio_tower", "multi_modal_projector"})
"""Parts of a multimodal model that are not language model."""

_MULTIMODAL = TOWERS | {"language_model", "text_model"}
# What transformers calls the inner model; a checkpoint of that alone leaves the name out.
_INNER = frozenset({"model", "transformer", "gpt_neox", "backbone"})


class Modules:
    """Looks a module of an adapter up among the base's: full names to (out_features, in_features)."""

    def __init__(self, modules: Mapping[str, tuple[int, int]]) -> None:
        self._modules = modules
        parts = {part for name in modules for part in name.split(".")}
        self._nested = bool(parts & _MULTIMODAL)
        self._short = {self._shorten(name): name for name in modules} if self._nested else {}
        self._inner_only = bool(modules) and not any(name.partition(".")[0] in _INNER for name in modules)

    def find(self, module: str) -> str | None:
        """Return the base's name for `module`: the same, or one that vLLM maps it to; None: there is none."""
        found = self.exact(module)
        if found is None and self._inner_only:
            first, _, rest = module.partition(".")
            return rest if first in _INNER and rest in self._modules else None
        return found

    def exact(self, module: str) -> str | None:
        """Return the base's name for `module`: the same, or the same but for the nesting."""
        if module in self._modules:
            return module
        return self._short.get(self._shorten(module)) if self._nested else None

    def knows(self, module: str) -> bool:
        """Whether the base has `module`, or the layer that these fused experts belong to."""
        return self.find(module) is not None or (".experts" in module and self.experts_known(module))

    def prefix_of(self, module: str) -> str | None:
        """Return what stands before the base's name in `module`, None where no end of it is the base's."""
        parts = module.split(".")
        starts = range(1, len(parts))
        return next((".".join(parts[:n]) for n in starts if self.knows(".".join(parts[n:]))), None)

    def has_target(self, target: str) -> bool:
        """Whether `target`, as `target_modules` names it, is a module or the end of one."""
        return any(name == target or name.endswith(f".{target}") for name in self._modules)

    def dimensions(self, module: str) -> tuple[int, int] | None:
        """Return the base's (out_features, in_features) for `module`, None where it has none."""
        name = self.find(module)
        return None if name is None else self._modules[name]

    def experts_known(self, module: str) -> bool:
        """Whether the base has the layer that fused experts belong to."""
        layer = module.partition(".experts")[0]
        return any(name.startswith(f"{layer}.") for name in self._modules)

    def _shorten(self, name: str) -> str:
        return ".".join(part for part in name.split(".") if part not in _NESTING)


def ends(module: str) -> Iterator[str]:
    """Yield the shorter names that `module` may be meant by: its ends, from the longest on."""
    parts = module.split(".")
    return (".".join(parts[start:]) for start in range(1, len(parts)))
