"""Data of any container, read one row at a time.

Owns the way from a place (a file, a folder, a pattern, a data set of the hub) to its rows; the containers
themselves are read in `train.dataset.containers`. Invariants: memory does not grow with the data; every row
that is not blank comes out, as a line, with its number from 1, counted on through the files of a folder;
what cannot be read comes out as the fault of a row.
"""

from __future__ import annotations

import hashlib
import itertools
import stat
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO

from registry.errors import UsageError
from train.dataset.containers import values
from train.dataset.containers.folders import find_files
from train.dataset.containers.kinds import Container, ContainerKind, find_kind
from train.dataset.containers.line import LONGEST_BYTES, RawRow, Shard, too_long
from train.dataset.containers.paragraphs import document_rows
from train.dataset.containers.place import DataPath, Where
from train.dataset.containers.streams import ContainerStream, open_stream
from train.dataset.records import Malformed

__all__ = [
    "DataPath",
    "RawRow",
    "Where",
    "hash_source",
    "name_row",
    "read_lines",
    "remarks",
    "sample_lines",
    "size_of",
]  # fmt: skip

_SHORT_LINE_BYTES = 1000


def read_lines(where: Where) -> Iterator[RawRow]:
    """Yield every row at `where` that is not blank.

    Raises: UsageError: when a file cannot be opened, or `where` leaves open which ones are meant.
    """
    files = find_files(where)
    if len(files.paths) == 1:
        yield from _read_file(files.paths[0], files.key)
        return
    offset = 0
    for path in files.paths:
        shard, last = Shard(path, offset), 0
        for line in _read_file(path, None):
            last = line.number
            yield replace(line, number=offset + last, shard=shard)
        offset += last


def sample_lines(where: Where, count: int) -> Iterator[RawRow]:
    """Yield about `count` rows, the same ones at every call; row numbers are 0 where they are not known.

    From all over a file of JSON Lines and from every file of a folder, else from the beginning.

    Raises: UsageError: when a file cannot be read.
    """
    files = find_files(where)
    each = max(1, count // len(files.paths))
    for path in files.paths[:count]:
        yield from _sample_file(path, files.key, each)


def size_of(places: Iterable[Where]) -> int:
    """Return the bytes of all files of `places`, as they are stored; what is not a file counts nothing."""
    return sum(path.stat().st_size for place in places for path in find_files(place).paths if path.is_file())


def remarks(where: Where) -> Iterator[tuple[str, str]]:
    """Yield (rule, fact) of what there is to say of each file at `where` as a whole.

    Raises: UsageError: when a file cannot be read.
    """
    files = find_files(where)
    for path in files.paths:
        for rule, fact in _remarks(path, files.key):
            shown = f"{path.name} {fact}" if len(files.paths) > 1 else fact
            yield rule, shown


def name_row(where: Where, number: int) -> str:
    """Return how an error names a row: with its file, and counted in that, where `where` is several."""
    if len(find_files(where).paths) > 1:
        line = next((line for line in read_lines(where) if line.number == number), None)
        if line is not None and line.shard is not None:
            return f"{line.shard.file} row {number - line.shard.offset}"
    return f"{where} row {number}"


def hash_source(where: Where) -> str:
    """Return the SHA-256 (hex) of the file at `where`; of several, one over their hashes and names in order.

    Raises: UsageError: when a file cannot be read.
    """
    found = [(path.name, _hash_file(path)) for path in find_files(where).paths]
    if len(found) == 1:
        return found[0][1]
    return hashlib.sha256("".join(f"{sha256}  {name}\n" for name, sha256 in found).encode()).hexdigest()


def _hash_file(path: Path) -> str:
    try:
        with _opened(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise _unreadable(path, error) from error


def _read_file(path: Path, key: str | None) -> Iterator[RawRow]:
    last = 0
    try:
        with _opened(path) as raw:
            for line in _lines(path, raw, key):
                last = line.number
                yield line
    except Malformed as fault:
        yield RawRow(last + 1, b"", 0, fault)
    except OSError as error:
        raise _unreadable(path, error) from error


def _lines(path: Path, raw: BinaryIO, key: str | None) -> Iterator[RawRow]:
    stream, container, inner = _open(path, raw, key)
    if container.kind is ContainerKind.LINES:
        rows = _plain(stream.file)
    elif container.kind is ContainerKind.TEXT:
        rows = document_rows(stream.file)
    elif container.kind is ContainerKind.ARRAY:
        rows = values.array_rows(stream.file)
    elif container.kind is ContainerKind.VALUES:
        rows = (
            values.value_rows(stream.file)
            if inner is None
            else values.list_rows(stream.file, inner, named=key is not None)
        )
    else:
        rows = _typed_rows(path, stream, container)
    told = stream.plain and container.kind in {ContainerKind.LINES, ContainerKind.TEXT, ContainerKind.PARQUET}
    return rows if told else _measured(rows, raw)


def _typed_rows(path: Path, stream: ContainerStream, container: Container) -> Iterator[RawRow]:
    if container.kind is ContainerKind.TABLE:
        from train.dataset.containers.tables import table_rows

        return table_rows(stream.file, container.delimiter)
    from train.dataset.containers.columnar import columnar_rows

    if not stream.plain and container.kind is not ContainerKind.ARROW_STREAM:
        fact = f"is {container.kind.value} inside {stream.packed}: it cannot be read from its end"
        raise Malformed(fact, "D-CONTAINER", "unpack it: it is compressed in itself")
    return columnar_rows(path, stream.file, container.kind)


def _open(path: Path, raw: BinaryIO, key: str | None) -> tuple[ContainerStream, Container, str | None]:
    """Return the stream of a file, its container and, of an object around a list of rows, the list's key.

    Raises: Malformed: a container that is not read; UsageError: it has no part `key`.
    """
    stream = open_stream(path, raw)
    container = find_kind(path, stream)
    inner = None
    if container.kind is ContainerKind.VALUES:
        inner = values.find_list(stream.head.decode("utf-8", "replace"), key)
        if inner is None and b"\n" not in stream.head.strip():
            # One long line that is a row: others may follow it.
            container = Container(ContainerKind.LINES)
    if key is not None and inner is None:
        raise UsageError(str(path), f"has no part {key!r}", "leave split out: it is one file", param="split")
    return stream, container, inner


def _remarks(path: Path, key: str | None) -> tuple[tuple[str, str], ...]:
    try:
        with _opened(path) as raw:
            stream, container, _ = _open(path, raw, key)
            return (*stream.remarks, *container.remarks)
    except Malformed:
        return ()
    except OSError as error:
        raise _unreadable(path, error) from error


def _sample_file(path: Path, key: str | None, count: int) -> Iterator[RawRow]:
    size = path.stat().st_size if path.is_file() else 0
    if size < count * _SHORT_LINE_BYTES or not _is_plain(path, key):
        yield from itertools.islice(_read_file(path, key), count)
        return
    with _opened(path) as file:
        for index in range(count):
            file.seek(index * size // count)
            file.readline(LONGEST_BYTES)
            if data := file.readline(LONGEST_BYTES).strip():
                yield RawRow(0, data, len(data))


def _is_plain(path: Path, key: str | None) -> bool:
    try:
        with _opened(path) as raw:
            stream, container, _ = _open(path, raw, key)
            return stream.plain and container.kind is ContainerKind.LINES
    except Malformed:
        return False


def _plain(file: BinaryIO) -> Iterator[RawRow]:
    for number, line in enumerate(_whole_lines(file), start=1):
        if len(line) >= LONGEST_BYTES:
            yield too_long(number, len(line))
        elif line.strip():
            yield RawRow(number, line.rstrip(b"\r\n"), len(line))


def _whole_lines(file: BinaryIO) -> Iterator[bytes]:
    """Yield the lines of `file`; of one that is too long, its beginning."""
    for line in iter(partial(file.readline, LONGEST_BYTES), b""):
        yield line
        rest = line
        while len(rest) == LONGEST_BYTES and not rest.endswith(b"\n"):
            rest = file.readline(LONGEST_BYTES)


def _measured(rows: Iterator[RawRow], raw: BinaryIO) -> Iterator[RawRow]:
    """Yield `rows` with the bytes that were read of the file on the disk for each."""
    before = 0
    for line in rows:
        now = raw.tell()
        yield replace(line, size=max(0, now - before))
        before = max(before, now)


def _opened(path: Path) -> BufferedReader:
    """Open a file; a pipe or a device is refused: rows are read more than once, and a pipe may never end.

    Raises: OSError; UsageError: it is not a regular file.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        fact = "is a folder" if path.is_dir() else "is a pipe or a device, and rows are read more than once"
        raise UsageError(str(path), fact, "write the rows to a file and name that")
    return path.open("rb")


def _unreadable(path: Path, error: OSError) -> UsageError:
    reason = error.strerror or str(error)
    return UsageError(str(path), f"cannot be read ({reason})", "name a data file, a folder or a pattern")
