"""What training changed: every weight that differs from the base's, as a difference, one at a time.

Owns how the weight that a model computes with is found: a plain one, one under LoRA, DoRA, PiSSA or a whole
module saved beside them. The only file of this package that looks inside PEFT's layers. Invariant: base plus
all differences is the model that was trained, but for the rounding of a base that an initialisation changed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from registry.errors import InvalidAdapter
from train.merging.factors import factorise, frobenius
from train.merging.weights import HEAD, FolderWeights

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

# Storing a weight in bf16 moves it by at most 2^-9 of itself. What an initialisation took out of the base and
# is no larger than this is rounding, not something that was taken out.
_ROUNDING = 2.0**-8


@dataclass(frozen=True, slots=True)
class ParameterChange:
    """The difference (fp32) between the parameter `name` as trained and the base's."""

    name: str
    delta: Tensor


def find_changes(changed: Module | Mapping[str, Tensor], base: FolderWeights) -> Iterator[ParameterChange]:
    """Yield what differs from `base` in a trained model, in a PEFT model, or in tensors by name.

    A tied embedding that changed is yielded twice, as embedding and as head.

    Raises: InvalidAdapter: reason `modules` for a weight that the base does not have, `shape` for one of
    another shape, `nan`, and `bad_config` for an adapter that has no weights of its own (Arrow, aLoRA).
    """
    for change in _found(changed, base):
        if not bool(change.delta.isfinite().all()):
            raise _refused(change.name, "holds NaN or infinity", "train with a lower rate", "nan")
        if bool(change.delta.any()):
            yield change


def _found(changed: Module | Mapping[str, Tensor], base: FolderWeights) -> Iterator[ParameterChange]:
    if isinstance(changed, Mapping):
        yield from _plain(changed, base)
    elif hasattr(changed, "peft_config"):
        yield from _under_peft(changed, base)
    else:
        yield from _plain(dict(changed.named_parameters(remove_duplicate=False)), base)


def _plain(tensors: Mapping[str, Tensor], base: FolderWeights) -> Iterator[ParameterChange]:
    for name in tensors:
        delta = _difference(name, tensors[name], base)
        yield ParameterChange(name, delta)
        if name == base.tied_to and HEAD not in tensors:
            yield ParameterChange(HEAD, delta)


def _under_peft(model: Any, base: FolderWeights) -> Iterator[ParameterChange]:
    from peft.tuners.lora import LoraLayer
    from peft.tuners.trainable_tokens import TrainableTokensLayer

    inner = model.get_base_model()
    layers = {name: module for name, module in inner.named_modules() if isinstance(module, LoraLayer)}
    tokens = {
        name: module for name, module in inner.named_modules() if isinstance(module, TrainableTokensLayer)
    }
    for name, layer in layers.items():
        yield from _under_lora(name, layer, base)
    for name, layer in tokens.items():
        weight = f"{name.removesuffix('.token_adapter')}.weight"
        merged = layer.get_merged_weights(layer.active_adapters)
        yield ParameterChange(weight, _difference(weight, merged, base))
    adapted = (*layers, *(name.removesuffix(".token_adapter") for name in tokens))
    for name, parameter in _others(inner, adapted, model.active_adapters).items():
        if parameter.is_floating_point():  # what is left of a quantised base is not trained
            yield ParameterChange(name, _difference(name, parameter, base))


def _others(model: Module, adapted: tuple[str, ...], active: list[str]) -> dict[str, Tensor]:
    """Return the parameters that no LoRA layer owns, by the base's names; whole saved modules too."""
    found: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        owner = next((one for one in adapted if name.startswith(f"{one}.")), None)
        if owner is not None:
            if name == f"{owner}.base_layer.bias":
                found[f"{owner}.bias"] = parameter
            continue
        module, saved, rest = name.partition(".modules_to_save.")
        if saved:
            adapter, _, leaf = rest.partition(".")
            if adapter in active:
                found[f"{module}.{leaf}"] = parameter
        elif ".original_module." not in name:
            found[name] = parameter
    return found


def _under_lora(name: str, layer: Any, base: FolderWeights) -> Iterator[ParameterChange]:
    import torch
    from peft.utils.integrations import dequantize_module_weight

    weight = f"{name}.weight"
    if not hasattr(layer.get_base_layer(), "weight"):
        fact = "carries a LoRA on a bare parameter (target_parameters), which is not converted"
        raise _refused(name, fact, "serve it as it is", "modules")
    adapters = [adapter for adapter in layer.active_adapters if adapter in layer.scaling]
    with torch.no_grad():
        own = dequantize_module_weight(layer.get_base_layer()).float()
        taken = _taken_out(weight, layer, own, base, sum(layer.r[adapter] for adapter in adapters))
        learnt = torch.zeros_like(own) if taken is None else -taken
        for adapter in adapters:
            learnt += _difference_made(name, layer, adapter, own)
            if layer.lora_bias.get(adapter):
                yield ParameterChange(
                    f"{name}.bias", layer.scaling[adapter] * layer.lora_B[adapter].bias.float()
                )
        yield ParameterChange(weight, learnt)


def _difference_made(name: str, layer: Any, adapter: str, weight: Tensor) -> Tensor:
    """Return what the adapter adds to `weight` (fp32), as the adapter's own kind says."""
    try:
        variant = layer.lora_variant.get(adapter)
        if variant is None:  # not by subtraction: a small product would drown in the weight's last digits
            product: Tensor = layer.get_delta_weight(adapter).float()
            return product
        merged: Tensor = variant.merge_safe(layer, adapter, weight)
    except (NotImplementedError, RuntimeError) as error:
        raise _refused(name, f"cannot be merged: {error}", "train a LoRA or DoRA", "bad_config") from error
    return merged - weight


def _taken_out(weight: str, layer: Any, own: Tensor, base: FolderWeights, rank: int) -> Tensor | None:
    """Return what the initialisation took out of the base's weight (PiSSA, OLoRA, …), None for nothing.

    It has the adapter's rank, which separates it from the rounding of what it left behind.
    """
    if not layer.get_base_layer().weight.is_floating_point():
        return None  # quantised: the adapter learnt on top of what the layer holds
    difference = -_difference(weight, own, base)
    if frobenius(difference) <= _ROUNDING * frobenius(own):
        return None
    taken = factorise(difference, rank).matrix(rank).to(difference.device)
    rest = frobenius(difference - taken)
    return taken if rest <= _ROUNDING * frobenius(own) else difference


def _difference(name: str, tensor: Tensor, base: FolderWeights) -> Tensor:
    if name not in base:
        fact = "is not a weight of the base"
        raise _refused(name, fact, "give what was trained on the base of this root", "modules")
    own = base[name]
    if own.shape != tensor.shape:
        fact = f"is {list(tensor.shape)}; the base's is {list(own.shape)}"
        raise _refused(name, fact, "train on this base, without new tokens", "shape")
    return tensor.detach().float() - own.to(tensor.device).float()


def _refused(name: str, fact: str, remedy: str, reason: str) -> InvalidAdapter:
    return InvalidAdapter(name, fact, remedy, reason=reason)
