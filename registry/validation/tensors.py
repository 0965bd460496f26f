"""The safetensors format: the header parsed strictly, the values scanned once, numpy only.

Owns what a file of tensors must be like to be read at all; knows nothing of LoRA. Invariant: a header that
parses describes every byte of its file exactly once, so no later reader can be led elsewhere; memory is
bounded by the header and one fixed buffer, whatever the header claims.

The values are read, not mapped: a file that shrinks under a mapping kills the process (SIGBUS).
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from io import FileIO
from typing import TYPE_CHECKING

import numpy as np

from registry.errors import InvalidAdapter
from registry.validation.canonical import parse_json
from registry.validation.intake.disguises import HEAD_BYTES, disguise
from registry.validation.intake.layouts import pickled

if TYPE_CHECKING:
    from pydantic import JsonValue

# The reference reader's own cap is 100 MB; 16 MiB holds 100,000 tensors, three times the largest MoE adapter.
HEADER_CAP_BYTES = 16 * 1024**2
_PREFIX_BYTES = 8
_MAX_DIMENSIONS = 8
_MAX_NAME_CHARS = 512
_BUFFER_BYTES = 1024**2
_BROKEN = "save the file again with safetensors; it is damaged, or was made to look like one"

_BITS = {
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "U16": 16, "I16": 16, "F16": 16, "BF16": 16,
    "U32": 32, "I32": 32, "F32": 32,
    "U64": 64, "I64": 64, "F64": 64, "C64": 64,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Layout:
    """How a float dtype lies in memory: the bits without the sign, and those of infinity."""

    word: str
    magnitude: int
    infinity: int


_LAYOUTS = {
    "BF16": _Layout("<u2", 0x7FFF, 0x7F80),
    "F16": _Layout("<u2", 0x7FFF, 0x7C00),
    "F32": _Layout("<u4", 0x7FFFFFFF, 0x7F800000),
}
SCANNABLE = frozenset(_LAYOUTS)


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor: dtype as safetensors spells it, shape, and its bytes `start` to `end` of the data."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Header:
    """A file's header: `tensors` in the order of their bytes, `raw` the bytes before the data."""

    tensors: tuple[TensorInfo, ...]
    metadata: Mapping[str, str]
    raw: bytes

    def renamed(self, names: Mapping[str, str]) -> Header:
        """Return the header with tensors called by their new `names`, spelt as safetensors spells one."""
        tensors = tuple(replace(one, name=names.get(one.name, one.name)) for one in self.tensors)
        entries: dict[str, JsonValue] = {
            one.name: {"dtype": one.dtype, "shape": list(one.shape), "data_offsets": [one.start, one.end]}
            for one in tensors
        }
        metadata: dict[str, JsonValue] = {"__metadata__": dict(self.metadata)} if self.metadata else {}
        text = json.dumps({**metadata, **entries}, separators=(",", ":"), ensure_ascii=False).encode()
        text += b" " * (-len(text) % _PREFIX_BYTES)
        return Header(tensors, self.metadata, struct.pack("<Q", len(text)) + text)


@dataclass(frozen=True, slots=True)
class TensorScan:
    """What one pass over the data found: the whole file's SHA-256, and the names of odd tensors."""

    sha256: str
    not_finite: tuple[str, ...]
    all_zero: frozenset[str]


def read_header(file: FileIO, size: int, subject: str, name: str = "the file") -> Header:
    """Read and check the header of a safetensors file of `size` bytes; leaves `file` at the data's start.

    `subject` begins the messages, `name` is what they call the file. Raises: InvalidAdapter: reason `size`
    for an empty file, `pickle` for what torch.save wrote, else `header`.
    """
    if size == 0:
        raise InvalidAdapter(subject, f"{name} is empty (0 bytes)", _BROKEN, reason="size")
    try:
        return _read_header(file, size, subject)
    except InvalidAdapter as error:
        # Nobody needs to be told of a header's length where the file is a web page.
        told = _told_apart(file, error, subject, name)
        if told is None:
            raise
        raise told from error


def _read_header(file: FileIO, size: int, subject: str) -> Header:
    if size < _PREFIX_BYTES:
        raise _broken(subject, f"the file has {size} bytes; the length of its header alone takes 8")
    prefix = _read_exactly(file, _PREFIX_BYTES, subject)
    (length,) = struct.unpack("<Q", prefix)
    if length > HEADER_CAP_BYTES:
        raise _broken(subject, f"its header claims {length} bytes; at most {HEADER_CAP_BYTES} are allowed")
    if length > size - _PREFIX_BYTES:
        raise _broken(subject, f"its header claims {length} bytes, but {size - _PREFIX_BYTES} follow")
    text = _read_exactly(file, length, subject)
    try:
        entries = parse_json(text)
    except ValueError as error:
        raise _broken(subject, f"its header is not JSON that can be trusted: {error}") from error
    if not isinstance(entries, dict):
        raise _broken(subject, "its header is not a JSON object")
    metadata = _parse_metadata(entries.pop("__metadata__", {}), subject)
    tensors = sorted(
        (_parse_tensor(name, entry, subject) for name, entry in entries.items()),
        key=lambda tensor: (tensor.start, tensor.end),
    )
    _check_contiguous(tensors, size - _PREFIX_BYTES - length, subject)
    return Header(tuple(tensors), metadata, prefix + text)


def _told_apart(file: FileIO, error: InvalidAdapter, subject: str, name: str) -> InvalidAdapter | None:
    """Return a refusal that says what the file really is, None where that is not known."""
    if error.reason != "header":
        return None
    file.seek(0)
    found = disguise(file.read(HEAD_BYTES))
    if found is None:
        return None
    if found.pickle:
        return pickled(name, subject)
    return InvalidAdapter(subject, f"{name} {found.fact}", found.remedy, reason="header")


def scan(file: FileIO, header: Header, subject: str) -> TensorScan:
    """Read the data once: hash the whole file, find NaN, infinity and tensors that are all zero.

    `file` stands at the data's start, where `read_header` left it; every dtype must be in SCANNABLE.
    Raises: InvalidAdapter: reason `digest` when the file has become shorter or longer meanwhile.
    """
    digest = hashlib.sha256(header.raw)
    buffer = memoryview(bytearray(_BUFFER_BYTES))
    not_finite: list[str] = []
    all_zero: set[str] = set()
    for tensor in header.tensors:
        peak = 0
        layout = _LAYOUTS[tensor.dtype]
        for chunk in _chunks(file, tensor.end - tensor.start, buffer, subject):
            digest.update(chunk)
            words = np.frombuffer(chunk, dtype=layout.word)
            peak = max(peak, int((words & layout.magnitude).max()))
        if peak >= layout.infinity:
            not_finite.append(tensor.name)
        if peak == 0:
            all_zero.add(tensor.name)
    if file.read(1):
        raise _changed(subject)
    return TensorScan(digest.hexdigest(), tuple(not_finite), frozenset(all_zero))


def _chunks(file: FileIO, size: int, buffer: memoryview, subject: str) -> Iterator[memoryview]:
    while size > 0:
        part = buffer[: min(size, len(buffer))]
        _fill(file, part, subject)
        yield part
        size -= len(part)


def _read_exactly(file: FileIO, size: int, subject: str) -> bytes:
    data = bytearray(size)
    _fill(file, memoryview(data), subject)
    return bytes(data)


def _fill(file: FileIO, target: memoryview, subject: str) -> None:
    filled = 0
    while filled < len(target):
        count = file.readinto(target[filled:])
        if not count:
            raise _changed(subject)
        filled += count


def _parse_metadata(value: JsonValue, subject: str) -> dict[str, str]:
    if not isinstance(value, dict):
        raise _broken(subject, "its header's __metadata__ is not an object")
    texts = {name: text for name, text in value.items() if isinstance(text, str)}
    if len(texts) != len(value):
        raise _broken(subject, "its header's __metadata__ holds something other than text")
    return texts


def _parse_tensor(name: str, entry: JsonValue, subject: str) -> TensorInfo:
    if not name or len(name) > _MAX_NAME_CHARS or not name.isprintable():
        raise _broken(subject, f"a tensor's name is empty, unprintable or too long: {name[:80]!r}")
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise _broken(subject, f"tensor {name} does not have exactly dtype, shape and data_offsets")
    dtype, shape = entry["dtype"], _sizes(entry["shape"])
    offsets = _sizes(entry["data_offsets"])
    if not isinstance(dtype, str) or dtype not in _BITS:
        raise _broken(subject, f"tensor {name} has the unknown dtype {str(dtype)[:40]!r}")
    if shape is None or len(shape) > _MAX_DIMENSIONS:
        raise _broken(subject, f"tensor {name} has no valid shape: {str(entry['shape'])[:80]}")
    if offsets is None or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise _broken(subject, f"tensor {name} has no valid offsets: {str(entry['data_offsets'])[:80]}")
    claimed, needed = 8 * (offsets[1] - offsets[0]), _BITS[dtype] * math.prod(shape)
    if claimed != needed:
        fact = f"tensor {name} has {claimed // 8} bytes; {dtype} {list(shape)} takes {needed // 8}"
        raise _broken(subject, fact)
    return TensorInfo(name, dtype, shape, offsets[0], offsets[1])


def _sizes(value: JsonValue) -> tuple[int, ...] | None:
    if not isinstance(value, list):
        return None
    sizes = tuple(item for item in value if isinstance(item, int) and not isinstance(item, bool))
    # Sizes beyond 2^53 are not sizes; refusing them also keeps the products below small.
    return sizes if len(sizes) == len(value) and all(0 <= size < 2**53 for size in sizes) else None


def _check_contiguous(tensors: list[TensorInfo], data_bytes: int, subject: str) -> None:
    end = 0
    for tensor in tensors:
        if tensor.start != end:
            what = "overlaps the one before it" if tensor.start < end else "leaves a gap before it"
            raise _broken(subject, f"tensor {tensor.name} {what} (begins at {tensor.start}, not {end})")
        end = tensor.end
    if end != data_bytes:
        raise _broken(subject, f"its tensors take {end} bytes, but {data_bytes} follow the header")


def _broken(subject: str, fact: str) -> InvalidAdapter:
    return InvalidAdapter(subject, fact, _BROKEN, reason="header")


def _changed(subject: str) -> InvalidAdapter:
    fact = "the file changed while it was read"
    return InvalidAdapter(subject, fact, "wait until nothing writes to it, then try again", reason="digest")
