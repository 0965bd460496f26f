"""The LoRA call as operators that a compiler does not look into, so that models compile with adapters.

What is traced is a constant name; everything that changes from step to step (the rows' slots, the slots'
weights) is looked up when the operator runs. So the compiled code holds for any adapters, and is kept on
disk from one start to the next. `Library.define` costs 2 us a call, 5 to 6 among a model's own products,
where `custom_op` costs several more; compiled code goes round the dispatcher (`_shorten`), for 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import torch  # noqa: TID253 - part of the kernel, imported by vLLM's worker only

from serve.engine.cpu_lora.packing import Module

if TYPE_CHECKING:
    from collections.abc import Callable


class Wrapper(Protocol):
    """What the operators need of `wrapper.GroupedPunicaWrapper`."""

    no_lora: bool
    """No row of this step has an adapter."""

    def add_module(self, y: torch.Tensor, x: torch.Tensor, module: Module, scale: float) -> None:
        """Add the module's part of each row's slot to `y`."""

    def add_embedding(self, y: torch.Tensor, x: torch.Tensor, b: torch.Tensor) -> None:
        """Add `x @ B` of each row's slot to `y`."""


class Site:
    """One linear module's place in the model: stands in for the wrapper there, under the module's name."""

    def __init__(self, wrapper: Wrapper, name: str, module: Module) -> None:
        self.wrapper = wrapper
        self.name = name
        self.module = module

    def add_lora_linear(self, y: torch.Tensor, x: torch.Tensor, *_weights: Any, **_unused: Any) -> None:
        """Add the module's part of each row's slot to `y`; vLLM's scale is always 1."""
        torch.ops.wardrobe.add_lora_linear(y, x, self.name)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.wrapper, name)


_sites: dict[str, Site] = {}
_wrappers: list[Wrapper] = []


def number_of(wrapper: Wrapper) -> int:
    """Return the number that `add_lora_embedding` is given for a new `wrapper`."""
    _wrappers.append(wrapper)
    return len(_wrappers) - 1


def place(layer: Any, wrapper: Wrapper) -> Site:
    """Return the site of a linear `layer`, which packs what is written to it (`pack_as_written`)."""
    module = Module(layer.lora_a_stacked, layer.lora_b_stacked)
    pack_as_written(layer, module)
    site = _sites[layer.base_layer.prefix] = Site(wrapper, layer.base_layer.prefix, module)
    return site


def pack_as_written(layer: Any, module: Module) -> None:
    """From now on have `module`, of the stacks of `layer`, pack a rewritten slot at once, and it alone.

    Else a step would pack all slots after each load (0.1 s for an `lm_head` of 256), and the first one after
    a start those of all modules: seconds for a thousand.
    """
    writing = set[int]()
    for writer in ("set_lora", "reset_lora"):
        setattr(layer, writer, _packing(getattr(layer, writer), module, writing))


def _packing(write: Callable[..., None], module: Module, writing: set[int]) -> Callable[..., None]:
    def packed(index: int, *arguments: Any, **named: Any) -> None:
        if index in writing:  # `set_lora` resets first: the slot is packed once, when it is written
            write(index, *arguments, **named)
            return
        writing.add(index)
        try:
            write(index, *arguments, **named)
        finally:
            writing.discard(index)
        module.mark(index)
        module.refresh()

    return packed


def _add_lora_linear(y: torch.Tensor, x: torch.Tensor, name: str) -> None:
    site = _sites[name]
    if not site.wrapper.no_lora:
        site.wrapper.add_module(y, x, site.module, 1.0)


def _add_lora_embedding(y: torch.Tensor, x: torch.Tensor, b: torch.Tensor, number: int) -> None:
    _wrappers[number].add_embedding(y, x, b)


def _traced(*_arguments: Any) -> None:
    """Say to a tracer that nothing is returned."""


def _shorten(overload: Any, function: Callable[..., None]) -> None:
    """Let `overload` call `function` at once, which is four fifths of what an idle call costs.

    Tracers go the long way: their tensors are of a class of their own, or they work in a dispatch mode.
    """
    through_dispatcher = overload._op  # noqa: SLF001 - what `OpOverload.__call__` calls
    modes = torch._C._len_torch_dispatch_stack  # noqa: SLF001 - has no public name

    def call(*arguments: Any, **named: Any) -> None:
        if named or type(arguments[0]) is not torch.Tensor or modes():
            through_dispatcher(*arguments, **named)
        else:
            function(*arguments)

    overload._op = call  # noqa: SLF001


_library = torch.library.Library("wardrobe", "FRAGMENT")
for _name, _function, _schema in (
    ("add_lora_linear", _add_lora_linear, "(Tensor(a!) y, Tensor x, str name) -> ()"),
    ("add_lora_embedding", _add_lora_embedding, "(Tensor(a!) y, Tensor x, Tensor b, int number) -> ()"),
):
    _library.define(_name + _schema)
    _library.impl(_name, _function, "CPU")
    torch.library.register_fake(f"wardrobe::{_name}", _traced, lib=_library)
    _shorten(getattr(torch.ops.wardrobe, _name).default, _function)
