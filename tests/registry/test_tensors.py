"""A safetensors header that parses describes every byte of its file once; anything else is InvalidAdapter."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from registry.errors import InvalidAdapter
from registry.validation.folder import open_regular
from registry.validation.tensors import HEADER_CAP_BYTES, SCANNABLE, Header, TensorScan, read_header, scan
from tests.fakes.safetensors import encode, file_bytes, raw_header

GOOD = file_bytes(
    {
        "a": encode(np.arange(1, 7, dtype=np.float32).reshape(2, 3), "BF16"),
        "b": encode(np.zeros((4, 2), dtype=np.float32), "F32"),
        "c": encode(np.ones(3, dtype=np.float32), "F16"),
    },
    {"format": "pt"},
)
Entries = dict[str, object]


def read(path: Path) -> tuple[Header, TensorScan]:
    file, size = open_regular(path, "support")
    with file:
        header = read_header(file, size, "support")
        return header, scan(file, header, "support")


def refusal(path: Path) -> InvalidAdapter:
    with pytest.raises(InvalidAdapter) as caught:
        read(path)
    assert caught.value.subject == "support"
    assert caught.value.fact
    assert caught.value.remedy
    return caught.value


def one(**changes: object) -> Entries:
    return {"t": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **changes}}


def test_a_right_file_gives_its_tensors_its_hash_and_its_zeros(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(GOOD)
    header, found = read(path)
    assert [(t.name, t.dtype, t.shape) for t in header.tensors] == [
        ("a", "BF16", (2, 3)), ("b", "F32", (4, 2)), ("c", "F16", (3,)),
    ]  # fmt: skip
    assert header.metadata == {"format": "pt"}
    assert found == TensorScan(hashlib.sha256(GOOD).hexdigest(), (), frozenset({"b"}))


def test_the_reference_reader_agrees_with_the_header(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors")
    path = tmp_path / "x.safetensors"
    path.write_bytes(GOOD)
    header, _ = read(path)
    with safetensors.safe_open(str(path), framework="np") as file:
        assert {t.name: list(t.shape) for t in header.tensors} == {
            name: file.get_slice(name).get_shape()
            for name in file.keys()  # noqa: SIM118
        }


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 1_000_000, 1_500_000])
def test_one_bad_value_anywhere_is_found(tmp_path: Path, dtype: str, value: float, place: int) -> None:
    values = np.full(1_500_001, 0.5, dtype=np.float32)
    values[place] = value
    path = tmp_path / "x.safetensors"
    path.write_bytes(
        file_bytes({"fine": encode(values[:5] * 0 + 1, dtype), "bad": encode(values, dtype)})
        if place
        else file_bytes({"bad": encode(values, dtype)})
    )
    assert read(path)[1].not_finite == ("bad",)


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
def test_the_largest_finite_values_and_negative_zero_are_no_error(tmp_path: Path, dtype: str) -> None:
    largest = {"BF16": 3.3895e38, "F16": 65504.0, "F32": 3.4028e38}[dtype]
    path = tmp_path / "x.safetensors"
    zeros = encode(np.array([-0.0, 0.0], dtype=np.float32), dtype)
    big = encode(np.array([largest, -largest, 1e-7], dtype=np.float32), dtype)
    path.write_bytes(file_bytes({"zeros": zeros, "big": big}))
    assert read(path)[1].not_finite == ()
    assert read(path)[1].all_zero == {"zeros"}


@pytest.mark.parametrize(
    ("entries", "data", "fact"),
    [
        (one(dtype="F7"), 8, "unknown dtype 'F7'"),
        (one(dtype=None), 8, "unknown dtype"),
        (one(shape=[3]), 8, r"8 bytes; F32 \[3\] takes 12"),
        (one(shape=[-2]), 8, "no valid shape"),
        (one(shape=[True, 2]), 8, "no valid shape"),
        (one(shape=[2.0]), 8, "no valid shape"),
        (one(shape="2"), 8, "no valid shape"),
        (one(shape=[1] * 8 + [2]), 8, "no valid shape"),
        (one(shape=[2**60, 2**60]), 8, "no valid shape"),
        (one(shape=[2**50, 2**50]), 8, "takes"),
        (one(data_offsets=[8, 0]), 8, "no valid offsets"),
        (one(data_offsets=[0]), 8, "no valid offsets"),
        (one(data_offsets=[0, 2**64]), 8, "no valid offsets"),
        (one(extra=1), 8, "exactly dtype"),
        ({"t": [1]}, 8, "exactly dtype"),
        ({"": one()["t"]}, 8, "name"),
        ({"x\n": one()["t"]}, 8, "name"),
        ({"x" * 513: one()["t"]}, 8, "name"),
        (one(), 12, "take 8 bytes, but 12 follow"),
        (one(), 4, "take 8 bytes, but 4 follow"),
        (one(data_offsets=[4, 12]), 12, "leaves a gap"),
        ({**one(), "u": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]}}, 12, "overlaps"),
        ({**one(), "u": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, 8, "overlaps"),
        ({**one(), "u": {"dtype": "F32", "shape": [2], "data_offsets": [12, 20]}}, 20, "leaves a gap"),
        ({**one(), "__metadata__": {"a": 1}}, 8, "other than text"),
        ({**one(), "__metadata__": []}, 8, "__metadata__ is not an object"),
    ],
)
def test_a_header_that_contradicts_itself_or_the_file_is_refused(
    tmp_path: Path, entries: Entries, data: int, fact: str
) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(raw_header(entries) + bytes(data))
    error = refusal(path)
    assert error.reason == "header"
    with pytest.raises(InvalidAdapter, match=fact):
        read(path)


@pytest.mark.parametrize(
    ("content", "reason", "fact"),
    [
        (b"", "size", "empty"),
        (b"\x01\x02", "header", "2 bytes"),
        (struct.pack("<Q", 40) + b"{}", "header", "claims 40 bytes, but 2 follow"),
        (struct.pack("<Q", HEADER_CAP_BYTES + 1) + b"{}", "header", f"at most {HEADER_CAP_BYTES}"),
        (struct.pack("<Q", 2**64 - 1) + b"{}", "header", "at most"),
        (struct.pack("<Q", 4) + b"nope", "header", "not JSON"),
        (struct.pack("<Q", 4) + b"\xff\xfe\x00\x01", "header", "not JSON"),
        (struct.pack("<Q", 2) + b"[]", "header", "not a JSON object"),
        (struct.pack("<Q", 50_000) + b"[" * 50_000, "header", "deeply"),
        (b"PK\x03\x04 a zip archive, as torch.save writes", "pickle", "pickled weights"),
        (GOOD[: len(GOOD) // 2], "header", "follow"),
        (GOOD[:-1], "header", "follow the header"),
        (GOOD + b"\0", "header", "follow the header"),
    ],
)
def test_a_file_that_is_cut_or_no_safetensors_is_refused(
    tmp_path: Path, content: bytes, reason: str, fact: str
) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    error = refusal(path)
    assert (error.reason, fact in error.fact) == (reason, True), error.fact


def test_a_header_that_gives_one_tensor_twice_is_refused(tmp_path: Path) -> None:
    entry = json.dumps(one()["t"])
    text = f'{{"t":{entry},"t":{entry}}}'.encode()
    path = tmp_path / "x.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(8))
    assert "'t' twice" in refusal(path).fact


def test_a_link_is_followed_and_a_folder_or_a_pipe_is_no_regular_file(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(GOOD)
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    assert read(tmp_path / "link") == read(tmp_path / "real")
    (tmp_path / "loop").symlink_to("loop")
    for name in ("loop", "dangling", "folder", "pipe", "absent"):
        error = refusal(tmp_path / name)
        assert (error.reason, name in error.fact) == ("path", True)


@pytest.mark.parametrize("change", [-1, -20, 1])
def test_a_file_that_changes_its_length_while_it_is_read_is_refused(tmp_path: Path, change: int) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(GOOD)
    file, size = open_regular(path, "support")
    with file:
        header = read_header(file, size, "support")
        path.write_bytes(GOOD[:change] if change < 0 else GOOD + b"\0")
        with pytest.raises(InvalidAdapter, match="changed while it was read") as caught:
            scan(file, header, "support")
    assert caught.value.reason == "digest"


def test_a_header_that_promises_terabytes_takes_no_memory(tmp_path: Path) -> None:
    size = 2**42
    path = tmp_path / "x.safetensors"
    path.write_bytes(raw_header(one(shape=[size // 4], data_offsets=[0, size])) + bytes(8))
    tracemalloc.start()
    refusal(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20


def test_scanning_takes_one_buffer_whatever_the_size(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(file_bytes({"t": encode(np.ones(16 * 2**20, dtype=np.float32), "BF16")}))
    tracemalloc.start()
    read(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert path.stat().st_size == 32 * 2**20 + 80
    assert peak < 4 * 2**20


@st.composite
def mutations(draw: st.DrawFn) -> bytes:
    """A right file with bytes replaced, removed or inserted, most of them in the header."""
    data = bytearray(GOOD)
    for _ in range(draw(st.integers(1, 4))):
        header_end = min(len(data), 8 + struct.unpack("<Q", GOOD[:8])[0])
        place = draw(st.integers(0, max(0, header_end - 1)) | st.integers(0, max(0, len(data) - 1)))
        kind = draw(st.sampled_from(["replace", "digit", "cut", "remove", "insert"]))
        if kind == "cut":
            del data[place:]
        elif kind == "remove":
            del data[place : place + draw(st.integers(1, 40))]
        elif kind == "insert":
            data[place:place] = draw(st.binary(min_size=1, max_size=20))
        else:
            value = draw(st.sampled_from(b'0123456789"[]{}:,-e.') if kind == "digit" else st.integers(0, 255))
            data[place : place + 1] = bytes([value])
    return bytes(data)


@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=mutations() | st.binary(max_size=200))
def test_no_bytes_escape_as_anything_but_invalid_adapter(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    tracemalloc.start()
    outcome = judge(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    if isinstance(outcome, TensorScan):
        assert outcome.sha256 == hashlib.sha256(content).hexdigest()
    else:
        assert outcome in {"header", "size", "unscannable"}
    # One buffer of 1 MiB, and the interpreter's own objects for a header of a few hundred bytes.
    assert peak < 2**20 + 200_000


def judge(path: Path) -> TensorScan | str:
    """Return what the scan found, or why it was refused; anything but InvalidAdapter escapes."""
    file, size = open_regular(path, "support")
    with file:
        try:
            header = read_header(file, size, "support")
        except InvalidAdapter as error:
            return error.reason
        assert sum(t.end - t.start for t in header.tensors) + len(header.raw) == size
        scannable = all(tensor.dtype in SCANNABLE for tensor in header.tensors)
        return scan(file, header, "support") if scannable else "unscannable"
