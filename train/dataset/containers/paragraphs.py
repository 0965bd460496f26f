"""Plain text: a document for each paragraph, numbered by its first line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from typing import BinaryIO

from train.dataset.containers.line import LONGEST_BYTES, RawRow, too_long


def document_rows(file: BinaryIO) -> Iterator[RawRow]:
    """Yield every paragraph of the text in `file`."""
    start, parts, size = 0, list[bytes](), 0
    for number, line in enumerate(iter(partial(file.readline, LONGEST_BYTES), b""), start=1):
        if line.strip():
            start, size = start or number, size + len(line)
            # What is too long is counted on, and not kept.
            if size <= LONGEST_BYTES:
                parts.append(line)
        elif size:
            yield _document(start, parts, size)
            start, parts, size = 0, [], 0
    if size:
        yield _document(start, parts, size)


def _document(start: int, parts: list[bytes], size: int) -> RawRow:
    if size > LONGEST_BYTES:
        return too_long(start, size)
    held = b"".join(parts)
    try:
        data = json.dumps({"text": held.decode("utf-8").strip()}, ensure_ascii=False).encode()
    except UnicodeDecodeError:
        data = held
    return RawRow(start, data, len(held))
