"""An upload: a multipart form, written to a folder of its own while it arrives.

Owns the parsing, its caps and the clean-up; what becomes of the folder is the registry's business.
Invariants: a file's name is one plain component (nothing is ever written outside the folder); no more
than the cap is written, whatever `content-length` says; the folder is gone when the request is over,
however it ends.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Protocol, TypeVar

import anyio
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from registry.errors import InvalidAdapter, LimitExceeded
from registry.storage import disk, files
from registry.validation.adapter import WEIGHTS_NAME, check_file_name
from registry.validation.peft import CONFIG_NAME
from serve.bounds.arrival import declared_bytes
from serve.errors import BadBody

MAX_FIELD_BYTES = 64 * 1024
# Bytes are gathered so that a big upload costs one thread switch per MiB, not one per packet.
_BATCH_BYTES = 1024 * 1024
_MAX_BOUNDARY_BYTES = 70  # RFC 2046, section 5.1.1
_TEXT_FIELDS = frozenset({"alias", "no_stable", "note", "allow_duplicate", "require"})
_FLAGS = {"true": True, "1": True, "false": False, "0": False, "": False}

_Answer = TypeVar("_Answer")


class RunBlocking(Protocol):
    """Runs a blocking call in a thread."""

    def __call__(self, call: Callable[[], _Answer], /) -> Awaitable[_Answer]:
        """Return what the call returns."""
        ...


@dataclass(slots=True)
class UploadForm:
    """A received form: the adapter's files in `folder`, golden prompts beside it, and the text fields."""

    folder: Path
    golden: Path | None = None
    fields: dict[str, str] = field(default_factory=dict)

    def text(self, name: str) -> str:
        """Return a text field, empty when it was not sent."""
        return self.fields.get(name, "")

    def flag(self, name: str) -> bool:
        """Return a yes-or-no field.

        Raises: BadBody: for anything but true, false, 1, 0.
        """
        value = self.text(name).lower()
        if value not in _FLAGS:
            raise BadBody(name, f"{value!r} is not a flag", "send true or false", param=name)
        return _FLAGS[value]


@asynccontextmanager
async def received(
    request: Request, adapter: str, staging: Path, max_bytes: int, run: RunBlocking
) -> AsyncIterator[UploadForm]:
    """Receive the form of an adapter into a new folder under `staging`, and remove the folder afterwards.

    `run` runs a blocking call in a thread. Raises: BadBody, InvalidAdapter, LimitExceeded, TooSlow;
    ClientDisconnect.
    """
    boundary = _boundary(request.headers.get("content-type", ""))
    _refuse_declared(request.headers.get("content-length"), max_bytes)
    scratch = staging / f"upload-{uuid.uuid4().hex}"
    receiver = await run(lambda: _Receiver(scratch, boundary, adapter))
    try:
        await _pour(request, receiver, max_bytes, run)
        yield receiver.finish()
    finally:
        with anyio.CancelScope(shield=True):
            await run(receiver.discard)


async def _pour(request: Request, receiver: _Receiver, max_bytes: int, run: RunBlocking) -> None:
    batch = bytearray()
    total = 0
    async for chunk in request.stream():
        total += len(chunk)
        if total > max_bytes:
            raise _too_large(f"more than {max_bytes} bytes arrived", max_bytes)
        batch += chunk
        if len(batch) >= _BATCH_BYTES:
            data, batch = bytes(batch), bytearray()
            await run(lambda data=data: receiver.feed(data))  # type: ignore[misc]
    await run(lambda: receiver.feed(bytes(batch)))


class _Receiver:
    """Feeds a multipart parser and writes what it finds; every method blocks."""

    def __init__(self, scratch: Path, boundary: bytes, adapter: str) -> None:
        self._adapter = adapter
        self._scratch = scratch
        self._form = UploadForm(scratch / "files")
        files.make_directory(self._form.folder)
        self._golden = scratch / "golden.jsonl"
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
            with disk.explained(self._scratch):
                self._parser.write(data)
        except FormParserError as error:
            raise BadBody("body", f"is not a multipart form ({error})", "send one", param="body") from error

    def finish(self) -> UploadForm:
        """Return the form, once all of it has arrived."""
        if not self._complete:
            raise BadBody("body", "ends before the form does", "send it again", param="body")
        for name in (CONFIG_NAME, WEIGHTS_NAME):
            if not (self._form.folder / name).is_file():
                remedy = "send the adapter's files as parts named files"
                raise InvalidAdapter(
                    self._adapter, f"{name} was not sent", remedy, reason="path", param="files"
                )
        return self._form

    def discard(self) -> None:
        """Remove everything that was written."""
        if self._file is not None:
            self._file.close()
        shutil.rmtree(self._scratch, ignore_errors=True)

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
        if self._field == "files":
            self._file = self._open(options.get(b"filename", b""))
        elif self._field == "golden":
            self._file = self._create(self._golden, "golden")
            self._form.golden = self._golden
        elif self._field not in _TEXT_FIELDS:
            allowed = ", ".join(("files", "golden", *sorted(_TEXT_FIELDS)))
            raise BadBody(repr(self._field), "is not a field of an upload", f"send {allowed}", param="body")

    def _open(self, raw: bytes) -> BinaryIO:
        # The allow-list is a handful of plain names, so nothing else of a name needs checking.
        name = check_file_name(raw.decode("utf-8", "backslashreplace"), self._adapter)
        return self._create(self._form.folder / name, "files")

    def _create(self, path: Path, param: str) -> BinaryIO:
        try:
            return path.open("xb")
        except FileExistsError as error:
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


def _refuse_declared(content_length: str | None, max_bytes: int) -> None:
    announced = declared_bytes((content_length or "").encode("latin-1"))
    if announced > max_bytes:
        raise _too_large(f"{announced} bytes were announced", max_bytes)


def _too_large(fact: str, max_bytes: int) -> LimitExceeded:
    remedy = "raise limits.max_upload_bytes or send less"
    return LimitExceeded("upload", f"{fact}; the limit is {max_bytes}", remedy, param="files")
