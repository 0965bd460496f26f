"""What became of one request, as it is written to `requests.jsonl`: one line each, in order of ending.

Times are seconds from the run's begin. `at` is when the request was due, `sent` when it left; what lies
between them is the generator's own delay and counts against the server's user all the same.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import IO, Any, Self

OK, ERROR, CANCELLED, UNFINISHED = "ok", "error", "cancelled", "unfinished"
FILE = "requests.jsonl"


@dataclass(slots=True)
class RequestRecord:
    """One request. `first` is when its first text came (streams), `pieces` how often text came.

    `adapter` is what was asked for without a version; `version`, `arm` are what the server's headers
    name. `error` is a kind: refused, unreachable, reset, timeout, cut, error event, invalid, no model,
    shed, or `http` and the status; `detail` quotes the server.
    """

    index: int
    at: float
    model: str
    max_tokens: int
    stream: bool
    turn: int = 0
    sent: float = 0.0
    first: float | None = None
    ended: float = 0.0
    outcome: str = UNFINISHED
    error: str = ""
    detail: str = ""
    status: int = 0
    version: str = ""
    arm: str = ""
    prompt_tokens: int = 0
    output_tokens: int = 0
    pieces: int = 0
    response_id: str = ""
    wrong_text: bool = False

    @property
    def adapter(self) -> str:
        """Return the name that was asked for, without version or alias."""
        return self.model.partition("@")[0]

    @property
    def wrong_adapter(self) -> bool:
        """Return True when the server says that another adapter answered."""
        return bool(self.version) and self.version.partition("@")[0] != self.adapter and self.arm != "base"

    def fail(self, kind: str, detail: str = "") -> None:
        """Note an error; the first one stays."""
        if self.outcome != ERROR:
            self.outcome, self.error, self.detail = ERROR, kind, detail[:300]


_NAMES = tuple(field.name for field in fields(RequestRecord))
_KNOWN = frozenset(_NAMES)
_TIMES = ("at", "sent", "first", "ended")
_dump = json.JSONEncoder(separators=(",", ":")).encode


class RecordFile:
    """Writes records to a new file; a context manager. What was written survives a kill but for a second."""

    def __init__(self, path: Path) -> None:
        self._file: IO[str] = path.open("w", encoding="utf-8")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, record: RequestRecord) -> None:
        """Append a record."""
        self._file.write(_encode(record) + "\n")

    def flush(self) -> None:
        """Hand what was written to the system."""
        self._file.flush()


def read_records(path: Path) -> Iterator[RequestRecord]:
    """Yield the records of a file; a last line that was cut off is left out."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            if line.endswith("\n"):
                row: dict[str, Any] = json.loads(line)
                if not row.keys() <= _KNOWN:  # written by a later release
                    row = {name: value for name, value in row.items() if name in _KNOWN}
                yield RequestRecord(**row)


def _encode(record: RequestRecord) -> str:
    # Not `asdict`, which copies deeply: this runs in the load's own loop.
    row = {name: getattr(record, name) for name in _NAMES}
    for name in _TIMES:
        if row[name] is not None:
            row[name] = round(row[name], 6)
    return _dump(row)
