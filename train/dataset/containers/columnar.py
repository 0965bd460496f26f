"""Parquet and Arrow: records of typed columns, a few hundred rows at a time.

Owns what Arrow's values are in JSON. Invariant: a key without a value (null) is as if it were not there,
for a schema gives every row every key.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Callable, Iterator
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any, BinaryIO

from train.dataset.containers.kinds import ContainerKind
from train.dataset.containers.line import LONGEST_BYTES, RawRow, too_long
from train.dataset.records import Malformed

_BATCH_ROWS = 256
_BUFFER_BYTES = 1 << 20
_AGAIN = "copy or download it again"
Plain = Callable[[Any], Any]


def columnar_rows(path: Path, file: BinaryIO, kind: ContainerKind) -> Iterator[RawRow]:
    """Yield every row of the Parquet or Arrow data in `file`; a stream of Arrow need not be seekable.

    Raises: Malformed: the file is damaged, from some row on.
    """
    import pyarrow as pa

    try:
        if kind is ContainerKind.PARQUET:
            yield from _parquet(path, file)
        else:
            yield from _rows(_arrow(file, kind), 0)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        told = " ".join(str(error).split())[:200]
        raise Malformed(f"{path.name} is damaged ({told})", "D-CONTAINER", _AGAIN) from error
    except OverflowError as error:
        fact = f"{path.name} has a value from here on that Python cannot hold ({error})"
        raise Malformed(fact, "D-CONTAINER", "leave its column out, or write it as text") from error


def _parquet(path: Path, file: BinaryIO) -> Iterator[RawRow]:
    import pyarrow.parquet as pq

    # Buffered and not ahead of time: a row group may be larger than memory.
    with pq.ParquetFile(file, buffer_size=_BUFFER_BYTES, pre_buffer=False) as opened:
        size = path.stat().st_size // max(1, opened.metadata.num_rows)
        yield from _rows(opened.iter_batches(batch_size=_BATCH_ROWS, use_threads=False), size)


def _arrow(file: BinaryIO, kind: ContainerKind) -> Iterator[Any]:
    import pyarrow as pa

    if kind is ContainerKind.ARROW_STREAM:
        yield from pa.ipc.open_stream(file)
        return
    opened = pa.ipc.open_file(file)
    for number in range(opened.num_record_batches):
        yield opened.get_batch(number)


def _rows(batches: Iterator[Any], size: int) -> Iterator[RawRow]:
    number, converters = 0, None
    for batch in batches:
        if converters is None:
            _require_distinct(batch.schema.names)
            converters = {field.name: _plain(field.type) for field in batch.schema}
        for start in range(0, batch.num_rows, _BATCH_ROWS):
            for row in batch.slice(start, _BATCH_ROWS).to_pylist():
                number += 1
                found = {key: converters[key](value) for key, value in row.items() if value is not None}
                data = json.dumps(found, ensure_ascii=False).encode("utf-8", "surrogatepass")
                yield RawRow(number, data, size) if len(data) < LONGEST_BYTES else too_long(number, size)


def _require_distinct(names: list[str]) -> None:
    twice = (
        next((name for name in names if names.count(name) > 1), None)
        if len(set(names)) < len(names)
        else None
    )
    if twice is not None:
        fact = f"the schema names the column {twice!r} twice"
        raise Malformed(fact, "D-CELLS", "give every column a name of its own")


def _plain(kind: Any) -> Plain:
    """Return what makes a JSON value of a value of the Arrow type `kind`."""
    from pyarrow import types

    if getattr(kind, "extension_name", "") == "arrow.json":
        return _parsed
    if hasattr(kind, "storage_type"):
        return _plain(kind.storage_type)
    if types.is_struct(kind):
        fields = {field.name: _plain(field.type) for field in kind}
        return lambda value: {key: fields[key](one) for key, one in value.items() if one is not None}
    if types.is_map(kind):
        return _of_map(_plain(kind.item_type))
    if types.is_dictionary(kind):
        return _plain(kind.value_type)
    if hasattr(kind, "value_type"):
        inner = _plain(kind.value_type)
        return lambda value: [None if one is None else inner(one) for one in value]
    return _leaf


def _of_map(inner: Plain) -> Plain:
    return lambda value: {str(key): None if one is None else inner(one) for key, one in value}


def _parsed(value: Any) -> Any:
    try:
        return json.loads(value)
    except (ValueError, TypeError):
        return value


def _leaf(value: Any) -> Any:
    """Return a number, a text, true or false; what JSON cannot say becomes the text that says it best."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Decimal):
        return int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, bytes):
        return _text(value)
    return str(value)


def _text(value: bytes) -> str:
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return base64.b64encode(value).decode()
