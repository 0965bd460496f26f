"""`/v1/files`: what a client uploads, and what jobs and batches give back.

Owns the form of an upload, what is checked at once, and the object that a client reads. Invariants: a file
that is refused leaves nothing behind; what is not JSONL gets no id where JSONL is needed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import FileResponse

from registry.entries.openai.files import CONTENT, FileInfo, FilePurpose
from registry.errors import NotFound
from registry.storage import disk
from serve.bounds.multipart import MAX_FIELD_BYTES, MAX_FIELDS, FormCap, ReceivedForm, receive_form
from serve.openai.asker import Asker, AskerOf, PlatformOf
from serve.openai.errors import RequestRefused
from serve.openai.pages import Order, cut, listed
from serve.openai.rows import check_rows
from serve.tuning_settings import TuningSettings

router = APIRouter(prefix="/v1/files")

UPLOADED = tuple(one.value for one in FilePurpose if not one.value.endswith(("_output", "-results")))
"""Purposes that a client may give."""

MIN_LIFETIME_SECONDS, MAX_LIFETIME_SECONDS = 3_600, 2_592_000
"""Of `expires_after`, as OpenAI has it: an hour to thirty days."""

_ROWS = frozenset({FilePurpose.FINE_TUNE, FilePurpose.BATCH})
_ANCHOR, _SECONDS = "expires_after[anchor]", "expires_after[seconds]"
_TEXT_FIELDS = ("purpose", _ANCHOR, _SECONDS)
_MAX_NAME_CHARACTERS = 255
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@router.post("")
async def create_file(request: Request, asker: AskerOf, platform: PlatformOf) -> dict[str, object]:
    """Store an upload."""
    staged, cap = platform.files.stage(), file_cap(platform.settings.tuning, "file")
    async with receive_form(request, staged, _place, cap, platform.run) as form:
        return file_object(await platform.run(partial(_adopt, asker, form)))


@router.get("")
async def list_files(
    asker: AskerOf,
    platform: PlatformOf,
    purpose: str | None = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 10_000,
    order: Order = "desc",
    after: str | None = None,
) -> dict[str, object]:
    """List the files of who asks, the newest first."""
    every = await platform.run(partial(platform.files.list, who=asker.filter, purpose=purpose))
    page, more = cut(every, lambda one: one.id, after=after, limit=limit, order=order)
    # The published structure has both ids as text, also where there is no file.
    return {"first_id": "", "last_id": ""} | listed([file_object(one) for one in page], more=more)


@router.get("/{file_id}")
async def retrieve_file(file_id: str, asker: AskerOf, platform: PlatformOf) -> dict[str, object]:
    """Tell what is known of a file."""
    return file_object(await platform.run(partial(asker.file, file_id)))


@router.delete("/{file_id}")
async def delete_file(file_id: str, asker: AskerOf, platform: PlatformOf) -> dict[str, object]:
    """Remove a file for good."""

    def delete() -> None:
        platform.files.delete(asker.file(file_id).id)

    await platform.run(delete)
    return {"id": file_id, "object": "file", "deleted": True}


@router.get("/{file_id}/content")
async def download_file(file_id: str, asker: AskerOf, platform: PlatformOf) -> FileResponse:
    """Send a file's bytes as they came; a CSV of results is plain, not base64 as OpenAI's."""

    def find() -> tuple[FileInfo, Path]:
        info = asker.file(file_id)
        return info, platform.files.content(info.id)

    info, path = await platform.run(find)
    return FileResponse(path, media_type="application/octet-stream", filename=info.filename)


def file_object(info: FileInfo) -> dict[str, object]:
    """Return the object that a client reads."""
    found: dict[str, object] = {
        "id": info.id,
        "object": "file",
        "bytes": info.bytes,
        "created_at": info.created_at,
        "filename": info.filename,
        "purpose": info.purpose,
        "status": info.status,
    }
    if info.expires_at is not None:
        found["expires_at"] = info.expires_at
    return found


def find_input(asker: Asker, file_id: str, purpose: FilePurpose, param: str) -> FileInfo:
    """Return the file that a job or a batch names under `param`; blocks.

    Raises: RequestRefused: there is none for who asks (as a parameter at fault, not as a missing page), or it
    is for something else.
    """
    try:
        info = asker.file(file_id)
    except NotFound as error:
        raise RequestRefused(
            f"Invalid file ID: {file_id[:100]}", param=param, reason="invalid_file_id"
        ) from error
    if info.purpose != purpose:
        fact = f"File '{info.id}' has the purpose '{info.purpose}', and '{purpose}' is needed here."
        raise RequestRefused(fact, param=param, reason="invalid_file_purpose")
    return info


def check_purpose(purpose: str) -> str:
    """Return a purpose that a client may give.

    Raises: RequestRefused.
    """
    if purpose not in UPLOADED:
        named = ", ".join(f"'{one}'" for one in UPLOADED)
        fact = f"'{purpose[:100]}' is not one of [{named}] - 'purpose'"
        raise RequestRefused(fact, param="purpose")
    return purpose


def check_content(path: Path, purpose: str) -> None:
    """Pass when the bytes at `path` are what files of this purpose hold; blocks.

    Raises: RequestRefused; StorageFailed.
    """
    if purpose in _ROWS:
        check_rows(path)


def check_name(name: str) -> str:
    """Return a file name without folders and control characters, not longer than a name may be.

    Raises: RequestRefused: nothing is left of it.
    """
    plain = _CONTROL.sub("", name.replace("\\", "/").rpartition("/")[2])[:_MAX_NAME_CHARACTERS]
    if not plain:
        raise RequestRefused("Missing file name.", param="file")
    return plain


def file_cap(settings: TuningSettings, param: str) -> FormCap:
    """Return the most bytes of a form with one file in it."""
    return FormCap(settings.max_file_bytes + MAX_FIELDS * MAX_FIELD_BYTES, "tuning.max_file_bytes", param)


def check_size(size: int, settings: TuningSettings) -> None:
    """Pass when a file is no larger than one may be.

    Raises: LimitExceeded.
    """
    if size > settings.max_file_bytes:
        cap = FormCap(settings.max_file_bytes, "tuning.max_file_bytes", "file")
        raise cap.refuse(f"the file has {size} bytes")


@dataclass(frozen=True, slots=True)
class _Wish:
    purpose: str
    name: str
    lifetime_seconds: int | None


def _adopt(asker: Asker, form: ReceivedForm) -> FileInfo:
    wish, files = _read(form), asker.platform.files
    content = form.folder / CONTENT
    check_size(disk.status(content).st_size, asker.platform.settings.tuning)
    check_content(content, wish.purpose)
    return files.adopt(
        form.folder, wish.purpose, wish.name, who=asker.who, lifetime_seconds=wish.lifetime_seconds
    )


def _read(form: ReceivedForm) -> _Wish:
    for name, there in (("file", form.names), ("purpose", form.fields)):
        if name not in there:
            fact = f"Missing required parameter: '{name}'."
            raise RequestRefused(fact, param=name, reason="missing_required_parameter")
    purpose = check_purpose(form.fields["purpose"])
    return _Wish(purpose, check_name(form.names["file"]), _lifetime(form.fields))


def _lifetime(fields: dict[str, str]) -> int | None:
    given = {name: fields[name] for name in (_ANCHOR, _SECONDS) if name in fields}
    if not given:
        return None
    for name in (_ANCHOR, _SECONDS):
        if name not in given:
            fact = f"Missing required parameter: '{name}'."
            raise RequestRefused(fact, param=name, reason="missing_required_parameter")
    if given[_ANCHOR] != "created_at":
        fact = f"Invalid value: '{given[_ANCHOR][:100]}'. Supported values are: 'created_at'."
        raise RequestRefused(fact, param=_ANCHOR, reason="invalid_value")
    seconds = given[_SECONDS]
    if not (seconds.isascii() and seconds.isdigit() and len(seconds) < 10):
        fact = f"Invalid type for '{_SECONDS}': expected an integer, but got '{seconds[:100]}'."
        raise RequestRefused(fact, param=_SECONDS, reason="invalid_type")
    if not MIN_LIFETIME_SECONDS <= int(seconds) <= MAX_LIFETIME_SECONDS:
        between = f"{MIN_LIFETIME_SECONDS} and {MAX_LIFETIME_SECONDS}"
        fact = f"Invalid '{_SECONDS}': {seconds} is not between {between}."
        raise RequestRefused(fact, param=_SECONDS, reason="invalid_value")
    return int(seconds)


def _place(part: str, _: str) -> str | None:
    if part == "file":
        return CONTENT
    if part not in _TEXT_FIELDS:
        fact = f"Unknown parameter: '{part[:100]}'."
        raise RequestRefused(fact, param=part[:100], reason="unknown_parameter")
    return None
