"""What the tests of `inspect` share: its call, its refusals, and flaws for adapters built from bytes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from registry.errors import InvalidAdapter
from registry.records import BaseModelInfo, Limits
from registry.validation.adapter import InspectedAdapter, TakenFile, inspect
from tests.fakes.adapters import Tensors
from tests.fakes.safetensors import Tensor, encode

LIMITS = Limits(max_lora_rank=32)
LAYER = "base_model.model.model.layers.0.self_attn."
WEIGHTS = "adapter_model.safetensors"


def check(folder: Path, base: BaseModelInfo, limits: Limits = LIMITS) -> InspectedAdapter:
    return inspect(folder, base=base, limits=limits, name="support")


def refusal(folder: Path, base: BaseModelInfo, limits: Limits = LIMITS) -> InvalidAdapter:
    before = snapshot(folder)
    with pytest.raises(InvalidAdapter) as caught:
        check(folder, base, limits)
    assert caught.value.subject == "support"
    assert caught.value.fact
    assert caught.value.remedy
    assert snapshot(folder) == before
    return caught.value


def snapshot(folder: Path) -> list[tuple[str, int, int]]:
    """Every entry's name, size and time of change: what must be the same after a refusal."""
    return sorted((p.name, p.lstat().st_size, p.lstat().st_mtime_ns) for p in folder.glob("**/*"))


def tensor(*shape: int, dtype: str = "BF16") -> Tensor:
    values = np.full(shape, 0.5, dtype=np.float32)
    return encode(values, dtype)


def adding(**tensors: Tensor) -> Callable[[Tensors], Tensors]:
    """Return a mutation that adds tensors; `__` in a name stands for a dot."""
    return lambda given: {**given, **{name.replace("__", "."): value for name, value in tensors.items()}}


def without(suffix: str) -> Callable[[Tensors], Tensors]:
    return lambda given: {name: value for name, value in given.items() if not name.endswith(suffix)}


def renaming(old: str, new: str) -> Callable[[Tensors], Tensors]:
    return lambda given: {name.replace(old, new): value for name, value in given.items()}


def taken(found: InspectedAdapter, name: str) -> TakenFile:
    return next(file for file in found.files if file.name == name)
