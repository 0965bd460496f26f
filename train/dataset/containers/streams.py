"""A file as a stream of UTF-8 bytes: unpacked, decoded, its line ends in order, never whole in memory.

Owns compression (gzip, zstd, bzip2, xz) and what is said of a damaged stream. Invariant: what was read
before the damage comes out first.
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from train.dataset.containers.encodings import BOM, find_wide
from train.dataset.records import Malformed

HEAD_BYTES = 1 << 20
_CHUNK_BYTES = 1 << 16
_PACKED = (
    (b"\x1f\x8b", "gzip"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\x00", "xz"),
)
_BINARY = (b"PAR1", b"ARROW1\0\0", b"\xff\xff\xff\xff")
"""Parquet, an Arrow file, an Arrow stream: no text, whatever bytes they hold."""
_AGAIN = "copy or download it again"


@dataclass(frozen=True, slots=True)
class ContainerStream:
    """An open file: its first bytes unpacked and decoded, and all of them.

    `whole` tells that `head` is the whole file. `raw` is the file on the disk, whose position says how far
    reading has come; `plain` that it can be read as it lies. `remarks` are (rule, fact) about the file.
    """

    head: bytes
    whole: bool
    file: BinaryIO
    raw: BinaryIO
    packed: str | None
    remarks: tuple[tuple[str, str], ...]

    @property
    def plain(self) -> bool:
        """Tell whether the stream's bytes are the file's."""
        return self.file is self.raw


def open_stream(path: Path, raw: BinaryIO) -> ContainerStream:
    """Return the stream of the open file `raw` at `path`.

    Raises: Malformed: it is damaged at its very beginning; OSError.
    """
    start = raw.read(8)
    raw.seek(0)
    packed = next((name for magic, name in _PACKED if start.startswith(magic)), None)
    file = _buffered(_unpacked(path, raw, packed)) if packed else raw
    head, damage = _read_head(file)
    if damage is not None and not head:
        raise damage
    remarks: list[tuple[str, str]] = []
    binary = head.startswith(_BINARY)
    if not binary and (wide := find_wide(head[:4096])):
        codec, skipped = wide
        marked = "with" if skipped else "without"
        remarks.append(("D-READ-AS", f"is {codec.upper()} {marked} a byte order mark, and is read as that"))
        file = _buffered(_recoded(_joined(head, file, damage), codec, skipped))
        head, damage = _read_head(file)
    elif head.startswith(BOM):
        remarks.append(("D-BOM", "begins with a byte order mark"))
        head = head.removeprefix(BOM)
    if not binary and b"\r" in head and b"\n" not in head:
        remarks.append(("D-READ-AS", "has lines that end in CR alone (\\r), and is read so"))
        file = _buffered(chunk.replace(b"\r", b"\n") for chunk in _joined(head, file, damage))
        head, damage = _read_head(file)
    whole = len(head) < HEAD_BYTES and damage is None
    if file is raw:
        raw.seek(len(BOM) if start.startswith(BOM) else 0)
    else:
        file = _buffered(_joined(head, file, damage))
    return ContainerStream(head, whole, file, raw, packed, tuple(remarks))


class _Chunks(io.RawIOBase):
    """A file over an iterator of bytes."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._left = memoryview(b"")

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer` with what comes next."""
        while not self._left:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._left = memoryview(chunk)
        count = min(len(buffer), len(self._left))
        buffer[:count], self._left = self._left[:count], self._left[count:]
        return count


class _Lent(io.RawIOBase):
    """A file that whoever reads it cannot close."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer` with what comes next."""
        chunk = self._file.read(len(buffer))
        buffer[: len(chunk)] = chunk
        return len(chunk)


def _buffered(chunks: Iterator[bytes]) -> BinaryIO:
    return io.BufferedReader(_Chunks(chunks), _CHUNK_BYTES)


def _joined(head: bytes, file: BinaryIO, damage: Malformed | None) -> Iterator[bytes]:
    yield head
    if damage is not None:
        raise damage
    while chunk := file.read(_CHUNK_BYTES):
        yield chunk


def _read_head(file: BinaryIO) -> tuple[bytes, Malformed | None]:
    """Return the first bytes of `file`, and the damage that ended them."""
    parts, size = [], 0
    try:
        while size < HEAD_BYTES and (chunk := file.read(min(_CHUNK_BYTES, HEAD_BYTES - size))):
            parts.append(chunk)
            size += len(chunk)
    except Malformed as damage:
        return b"".join(parts), damage
    return b"".join(parts), None


def _unpacked(path: Path, raw: BinaryIO, packed: str) -> Iterator[bytes]:
    file = _OPENERS[packed](raw)
    try:
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk
    except EOFError as error:
        raise Malformed(f"the {packed} stream of {path.name} ends in the middle", "D-TORN", _AGAIN) from error
    except (OSError, zlib.error, lzma.LZMAError) as error:
        torn = "truncated" in str(error).lower()
        fact = "ends in the middle" if torn else f"is damaged ({error})"
        rule = "D-TORN" if torn else "D-CONTAINER"
        raise Malformed(f"the {packed} stream of {path.name} {fact}", rule, _AGAIN) from error


def _recoded(chunks: Iterator[bytes], codec: str, skipped: int) -> Iterator[bytes]:
    decoder = codecs.getincrementaldecoder(codec)("strict")
    try:
        for chunk in chunks:
            text = decoder.decode(chunk[skipped:])
            skipped = 0
            # Half a character is a fault of one row, which the row's own check names.
            yield text.encode("utf-8", "surrogatepass")
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        fact = f"is {codec.upper()} up to here, and then is not ({error.reason})"
        raise Malformed(fact, "D-ENCODING", "save the file as UTF-8") from error


def _gzip(raw: BinaryIO) -> Any:
    return gzip.GzipFile(fileobj=raw)


def _zstd(raw: BinaryIO) -> Any:
    import pyarrow as pa

    return pa.CompressedInputStream(pa.PythonFile(_Lent(raw), mode="r"), "zstd")


_OPENERS: dict[str, Callable[[BinaryIO], Any]] = {
    "gzip": _gzip,
    "zstd": _zstd,
    "bzip2": bz2.BZ2File,
    "xz": lzma.LZMAFile,
}
