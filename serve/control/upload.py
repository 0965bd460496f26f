"""An upload of an adapter: which parts its form has, and what each is for.

The form itself is received by `serve.bounds.multipart`; what becomes of the folder is the registry's
business. Invariant: a file's name is one plain component of an allow-list (nothing is ever written outside
the folder).
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from starlette.requests import Request

from registry.errors import InvalidAdapter
from registry.validation.adapter import WEIGHTS_NAME, check_file_name
from registry.validation.peft import CONFIG_NAME
from serve.bounds.multipart import FormCap, RunBlocking, receive_form
from serve.errors import BadBody

_FILES, _GOLDEN = "files", "golden.jsonl"
_TEXT_FIELDS = frozenset({"alias", "no_stable", "note", "allow_duplicate", "require"})
_FLAGS = {"true": True, "1": True, "false": False, "0": False, "": False}


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
    cap = FormCap(max_bytes, "limits.max_upload_bytes", "files")
    scratch = staging / f"upload-{uuid.uuid4().hex}"
    async with receive_form(request, scratch, partial(_place, adapter), cap, run) as form:
        for name in (CONFIG_NAME, WEIGHTS_NAME):
            if not (scratch / _FILES / name).is_file():
                remedy = "send the adapter's files as parts named files"
                raise InvalidAdapter(adapter, f"{name} was not sent", remedy, reason="path", param="files")
        golden = scratch / _GOLDEN if "golden" in form.names else None
        yield UploadForm(scratch / _FILES, golden, form.fields)


def _place(adapter: str, part: str, name: str) -> str | None:
    if part == "files":
        # The allow-list is a handful of plain names, so nothing else of a name needs checking.
        return f"{_FILES}/{check_file_name(name, adapter)}"
    if part == "golden":
        return _GOLDEN
    if part not in _TEXT_FIELDS:
        allowed = ", ".join(("files", "golden", *sorted(_TEXT_FIELDS)))
        raise BadBody(repr(part), "is not a field of an upload", f"send {allowed}", param="body")
    return None
