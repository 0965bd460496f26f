"""The safetensors format, written by hand: for right files, and for files wrong on purpose."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

ITEM_SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "I8": 1, "U8": 1, "I64": 8, "BOOL": 1}


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """A tensor's dtype (as safetensors spells it) and shape."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """Its size in bytes."""
        return ITEM_SIZES[self.dtype] * math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor and its raw little-endian bytes."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes


def encode(values: npt.NDArray[np.float32], dtype: str) -> Tensor:
    """Encode float32 values as a tensor of `dtype`; bf16 is truncated, which keeps NaN and infinity."""
    if dtype == "BF16":
        raw = (np.ascontiguousarray(values).view(np.uint32) >> 16).astype("<u2").tobytes()
    elif dtype in {"F16", "F32", "F64"}:
        with np.errstate(over="ignore"):
            raw = values.astype({"F16": "<f2", "F32": "<f4", "F64": "<f8"}[dtype]).tobytes()
    else:
        raw = bytes(ITEM_SIZES[dtype] * values.size)
    return Tensor(dtype, values.shape, raw)


def header_bytes(specs: Mapping[str, TensorSpec], metadata: Mapping[str, str] | None = None) -> bytes:
    """Return the length prefix and the JSON header, tensors laid out in the order given."""
    entries: dict[str, object] = {} if metadata is None else {"__metadata__": dict(metadata)}
    offset = 0
    for name, spec in specs.items():
        entries[name] = {
            "dtype": spec.dtype,
            "shape": list(spec.shape),
            "data_offsets": [offset, offset + spec.size],
        }
        offset += spec.size
    return raw_header(entries)


def raw_header(entries: Mapping[str, object]) -> bytes:
    """Return the length prefix and the JSON header of any entries, right or wrong, padded to eight bytes."""
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def file_bytes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> bytes:
    """Return a whole safetensors file."""
    specs = {name: TensorSpec(tensor.dtype, tensor.shape) for name, tensor in tensors.items()}
    return header_bytes(specs, metadata) + b"".join(tensor.data for tensor in tensors.values())
