"""A multipart form on its way in: written to a folder of its own while it arrives, never whole in memory.

Owns the parsing, its caps and the clean-up; which parts there may be, and where each is written, is the
caller's rule. Invariants: no more than the cap is written, whatever `content-length` says; the folder is
gone when the request is over, however it ends, unless the caller has moved it away.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Protocol, TypeVar

import anyio
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from registry.errors import LimitExceeded, StorageFailed
from registry.storage import disk, files
from serve.bounds.arrival import declared_bytes
from serve.errors import BadBody

MAX_FIELD_BYTES = 64 * 1024
MAX_FIELDS = 64
# Bytes are gathered so that a big upload costs one thread switch per MiB, not one per packet.
_BATCH_BYTES = 1024 * 1024
_MAX_BOUNDARY_BYTES = 70  # RFC 2046, section 5.1.1

_Answer = TypeVar("_Answer")

Place = Callable[[str, str], str | None]
"""Says where within the folder the part with this field and file name is written; None: it is a text field.

It raises for a part that the form may not have. The name is what the client wrote, unchecked.
"""


class RunBlocking(Protocol):
    """Runs a blocking call in a thread."""

    def __call__(self, call: Callable[[], _Answer], /) -> Awaitable[_Answer]:
        """Return what the call returns."""
        ...


@dataclass(frozen=True, slots=True)
class FormCap:
    """Most bytes of a form; `setting` is what raises it, `param` the part that is blamed."""

    max_bytes: int
    setting: str
    param: str

    def refuse(self, fact: str) -> LimitExceeded:
        """Return the error of a form that is larger."""
        remedy = f"raise {self.setting} or send less"
        return LimitExceeded("upload", f"{fact}; the limit is {self.max_bytes}", remedy, param=self.param)


@dataclass(slots=True)
class ReceivedForm:
    """A form that has arrived: its text fields, its files in `folder`, and what the client called them."""

    folder: Path
    fields: dict[str, str] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)


@asynccontextmanager
async def receive_form(
    request: Request, folder: Path, place: Place, cap: FormCap, run: RunBlocking
) -> AsyncIterator[ReceivedForm]:
    """Receive a form into the new folder `folder`, and remove what is left of it afterwards.

    `run` runs a blocking call in a thread. Raises: BadBody, LimitExceeded, TooSlow; StorageFailed; whatever
    `place` raises; ClientDisconnect.
    """
    boundary = _boundary(request.headers.get("content-type", ""))
    announced = declared_bytes((request.headers.get("content-length") or "").encode("latin-1"))
    if announced > cap.max_bytes:
        raise cap.refuse(f"{announced} bytes were announced")
    receiver = await run(lambda: _Receiver(folder, boundary, place))
    try:
        await _pour(request, receiver, cap, run)
        yield receiver.finish()
    finally:
        with anyio.CancelScope(shield=True):
            await run(receiver.discard)


async def _pour(request: Request, receiver: _Receiver, cap: FormCap, run: RunBlocking) -> None:
    batch = bytearray()
    total = 0
    async for chunk in request.stream():
        total += len(chunk)
        if total > cap.max_bytes:
            raise cap.refuse(f"more than {cap.max_bytes} bytes arrived")
        batch += chunk
        if len(batch) >= _BATCH_BYTES:
            data, batch = bytes(batch), bytearray()
            await run(lambda data=data: receiver.feed(data))  # type: ignore[misc]
    await run(lambda: receiver.feed(bytes(batch)))


class _Receiver:
    """Feeds a multipart parser and writes what it finds; every method blocks."""

    def __init__(self, folder: Path, boundary: bytes, place: Place) -> None:
        self._place = place
        self._form = ReceivedForm(folder)
        files.make_directory(folder)
        self._header_name = b""
        self._header_value = b""
        self._disposition = b""
        self._field = ""
        self._text = bytearray()
        self._file: BinaryIO | None = None
        self._complete = False
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._part_begin,
                "on_header_field": self._header_field,
                "on_header_value": self._header_text,
                "on_header_end": self._header_end,
                "on_headers_finished": self._headers_finished,
                "on_part_data": self._part_data,
                "on_part_end": self._part_end,
                "on_end": self._end,
            },
        )

    def feed(self, data: bytes) -> None:
        """Parse and write `data`."""
        if not data:
            return
        try:
            with disk.explained(self._form.folder):
                self._parser.write(data)
        except FormParserError as error:
            raise BadBody("body", f"is not a multipart form ({error})", "send one", param="body") from error

    def finish(self) -> ReceivedForm:
        """Return the form, once all of it has arrived."""
        if not self._complete:
            raise BadBody("body", "ends before the form does", "send it again", param="body")
        return self._form

    def discard(self) -> None:
        """Remove everything that was written."""
        if self._file is not None:
            self._file.close()
        with contextlib.suppress(StorageFailed):  # `wardrobe gc` takes what stays in staging
            files.remove_tree(self._form.folder)

    def _part_begin(self) -> None:
        self._disposition = b""

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _header_text(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _header_end(self) -> None:
        if self._header_name.lower() == b"content-disposition":
            self._disposition = self._header_value
        self._header_name = self._header_value = b""

    def _headers_finished(self) -> None:
        kind, options = parse_options_header(self._disposition)
        self._field = options.get(b"name", b"").decode("utf-8", "backslashreplace")
        self._text = bytearray()
        if kind != b"form-data":
            raise BadBody("body", "has a part that is not form-data", "send one", param="body")
        name = options.get(b"filename", b"").decode("utf-8", "backslashreplace")
        target = self._place(self._field, name)
        if target is not None:
            self._file = self._create(self._form.folder / target)
            self._form.names[self._field] = name

    def _create(self, path: Path) -> BinaryIO:
        files.make_directory(path.parent, durable=False)
        try:
            return path.open("xb")
        except FileExistsError as error:
            param = self._field
            raise BadBody(param, f"{path.name} was sent twice", "send it once", param=param) from error

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        if self._file is not None:
            self._file.write(memoryview(data)[start:end])
            return
        self._text += data[start:end]
        if len(self._text) > MAX_FIELD_BYTES:
            fact = f"is longer than {MAX_FIELD_BYTES} bytes"
            raise LimitExceeded(self._field, fact, "send less", param=self._field)

    def _part_end(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
            return
        if self._field in self._form.fields:
            raise BadBody(self._field, "was sent twice", "send it once", param=self._field)
        if len(self._form.fields) >= MAX_FIELDS:
            raise LimitExceeded("body", f"has more than {MAX_FIELDS} fields", "send fewer", param="body")
        try:
            self._form.fields[self._field] = self._text.decode()
        except UnicodeDecodeError as error:
            raise BadBody(self._field, "is not UTF-8", "send UTF-8", param=self._field) from error

    def _end(self) -> None:
        self._complete = True


def _boundary(content_type: str) -> bytes:
    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not 0 < len(boundary) <= _MAX_BOUNDARY_BYTES:
        fact = f"content-type {content_type[:100]!r} is not multipart/form-data with a boundary"
        raise BadBody("body", fact, "send a form", param="content-type")
    return boundary
