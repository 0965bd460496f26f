"""Weights that several processes share out among them, as whole tensors and back.

Owns what must not be forgotten where each process holds a piece (FSDP): reading, summing and saving need the
whole. Invariant: `whole` and `put` are called by every process alike, since each asks all the others for
their pieces; on weights that are not shared out they talk to nobody.
"""

from __future__ import annotations

from typing import Any


def whole(tensor: Any) -> Any:
    """Return a parameter's value with all its pieces, detached: itself where it is in one piece."""
    value = tensor.detach()
    gather = getattr(value, "full_tensor", None)
    return value if gather is None else gather()


def put(parameter: Any, value: Any) -> None:
    """Copy the whole tensor `value` into `parameter`, in place; each process keeps its piece."""
    import torch

    mesh = getattr(parameter, "device_mesh", None)
    with torch.no_grad():
        if mesh is not None:
            from torch.distributed.tensor import distribute_tensor

            value = distribute_tensor(value.to(parameter.device), mesh, parameter.placements)
        parameter.copy_(value)


def is_shared_out(model: Any) -> bool:
    """Tell whether a process holds but pieces of the weights."""
    return any(hasattr(one, "full_tensor") for one in model.parameters())


def whole_weights(model: Any) -> dict[str, Any]:
    """Return every trainable tensor of `model`, whole, by name [CPU]."""
    return {name: whole(one).contiguous().cpu() for name, one in trainable(model)}


def trainable(model: Any) -> list[tuple[str, Any]]:
    """Return the parameters that are trained, by name."""
    return [(name, one) for name, one in model.named_parameters() if one.requires_grad]
