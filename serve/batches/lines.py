"""The lines of a batch's input file: what each asks, and what is wrong with the file.

Reads line by line: a file of 50,000 requests is never in memory. Invariant: `check_lines` and `read_lines`
count alike, so a line's place is the same for everybody who reads the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import BinaryIO

import msgspec

from registry.storage import disk
from serve.openai.rows import lines

ENDPOINTS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings")
"""What a batch may ask."""

MAX_LINES = 50_000
"""Most requests of a batch, as at OpenAI."""
MAX_ERRORS = 100
"""Most faults of a file that are told; the rest are of the same kinds."""


class _Line(msgspec.Struct):
    custom_id: str
    method: str
    url: str
    body: msgspec.Raw


class _Head(msgspec.Struct):
    model: str = ""
    stream: bool | None = None


_line, _head, _object = (
    msgspec.json.Decoder(_Line),
    msgspec.json.Decoder(_Head),
    msgspec.json.Decoder(dict[str, msgspec.Raw]),
)


@dataclass(frozen=True, slots=True)
class BatchLine:
    """One request: its place in the file (from 0), the client's own name for it, and the body to send."""

    place: int
    custom_id: str
    body: bytes
    streams: bool = False


@dataclass(frozen=True, slots=True)
class LineFault:
    """What is wrong with a file, in the fields of OpenAI's errors; `line` counts from 1, None: all of it."""

    code: str
    message: str
    line: int | None = None
    param: str | None = None

    def document(self) -> dict[str, str | int | None]:
        """Return it as an object of `errors.data`."""
        return {"code": self.code, "message": self.message, "line": self.line, "param": self.param}


@dataclass(frozen=True, slots=True)
class CheckedInput:
    """A file that was read once: how many requests, the first one's model, and what is wrong."""

    total: int
    model: str
    faults: tuple[LineFault, ...]


def check_lines(path: Path, endpoint: str, max_bytes: int) -> CheckedInput:
    """Read the whole file and say what is wrong with it; `max_bytes` is the longest body. Blocks.

    Raises: Missing; StorageFailed.
    """
    seen: set[bytes] = set()
    faults: list[LineFault] = []
    total, model = 0, ""
    with disk.explained(path), disk.open_plain(path) as file:
        for number, raw in lines(file):
            total += 1
            if total > MAX_LINES:
                break
            found = _check(number, raw, endpoint, max_bytes, seen)
            if isinstance(found, LineFault):
                faults.append(found)
            else:
                model = model or found
            if len(faults) >= MAX_ERRORS:
                break
    if total > MAX_LINES:
        fact = f"The input file has more than {MAX_LINES} requests, the most that a batch may have."
        faults.insert(0, LineFault("too_many_tasks", fact))
    elif not total:
        faults.append(LineFault("empty_file", "The input file has no requests."))
    return CheckedInput(total, model, tuple(faults))


def read_lines(file: BinaryIO) -> Iterator[BatchLine]:
    """Yield the requests of a file that was checked."""
    for place, (_, raw) in enumerate(lines(file)):
        line = _line.decode(raw)
        yield BatchLine(place, line.custom_id, bytes(line.body), bool(_streams(bytes(line.body))))


def _check(
    number: int, raw: bytes, endpoint: str, max_bytes: int, seen: set[bytes]
) -> LineFault | str:
    """Return a line's model, or what is wrong with it."""
    try:
        line = _line.decode(raw)
    except (msgspec.DecodeError, RecursionError) as error:
        missing = next((one for one in ("custom_id", "method", "url", "body") if f"`{one}`" in str(error)), None)
        if missing is not None:
            return LineFault("missing_required_parameter", f"Missing required parameter: '{missing}'.", number, missing)
        return LineFault("invalid_json_line", "This line is not a request of a batch.", number)
    mark = blake2b(line.custom_id.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    if mark in seen:
        fact = f"The custom_id '{line.custom_id[:100]}' is used more than once."
        return LineFault("duplicate_custom_id", fact, number, "custom_id")
    seen.add(mark)
    if line.method != "POST":
        return LineFault("invalid_method", f"The method '{line.method[:20]}' is not 'POST'.", number, "method")
    if line.url != endpoint:
        fact = f"The URL '{line.url[:100]}' is not the endpoint of the batch, '{endpoint}'."
        return LineFault("invalid_url", fact, number, "url")
    if len(line.body) > max_bytes:
        return LineFault("request_too_large", f"The body has more than {max_bytes} bytes.", number, "body")
    try:
        _object.decode(line.body)
        head = _head.decode(line.body)
    except msgspec.DecodeError:
        return LineFault("invalid_request", "The body is no object with a 'model'.", number, "body")
    if not head.model:
        return LineFault("missing_required_parameter", "Missing required parameter: 'model'.", number, "model")
    return head.model


def _streams(body: bytes) -> bool | None:
    return _head.decode(body).stream
