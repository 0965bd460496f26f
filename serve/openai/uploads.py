"""`/v1/uploads`: a file in parts, larger than one request may bring."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Request
from pydantic import Field

from registry.entries.openai.files import CONTENT, FileInfo
from registry.entries.openai.ids import made_at
from registry.entries.openai.uploads import UploadInfo, UploadStore
from registry.errors import LimitExceeded, NotFound
from serve.bounds.multipart import FormCap, receive_form
from serve.openai.asker import Asker, AskerOf, Platform, PlatformOf
from serve.openai.bodies import ExpiresAfter, RequestBody
from serve.openai.errors import RequestRefused
from serve.openai.files import check_content, check_name, check_purpose, file_object

router = APIRouter(prefix="/v1/uploads")

MAX_PART_BYTES = 64 * 1024**2
"""Largest part, as at OpenAI."""
MAX_PARTS = 10_000


class UploadRequest(RequestBody):
    """What is going to be uploaded."""

    filename: str
    purpose: str
    bytes: Annotated[int, Field(gt=0)]
    mime_type: str
    expires_after: ExpiresAfter | None = None


class UploadCompletion(RequestBody):
    """The parts of an upload in order, and the MD5 of all of it in hexadecimal."""

    part_ids: Annotated[list[str], Field(min_length=1, max_length=MAX_PARTS)]
    md5: str | None = None


@router.post("")
async def create_upload(body: UploadRequest, asker: AskerOf, platform: PlatformOf) -> dict[str, object]:
    """Begin an upload."""
    limit = platform.settings.tuning.max_upload_bytes
    if body.bytes > limit:
        fact = f"{body.bytes} bytes were announced; the limit is {limit}"
        raise LimitExceeded("upload", fact, "raise tuning.max_upload_bytes or send less", param="bytes")
    begin = partial(
        _store(platform).begin,
        check_name(body.filename),
        check_purpose(body.purpose),
        body.bytes,
        body.mime_type,
        owner=asker.who,
        lifetime_seconds=None if body.expires_after is None else body.expires_after.seconds,
    )
    return upload_object(await platform.run(begin))


@router.post("/{upload_id}/parts")
async def add_part(
    upload_id: str, request: Request, asker: AskerOf, platform: PlatformOf
) -> dict[str, object]:
    """Add a part; parts may come in any order and beside each other."""
    await platform.run(partial(_find, asker, upload_id))
    store, cap = _store(platform), FormCap(MAX_PART_BYTES + 64 * 1024, "the number of parts", "data")
    async with receive_form(request, store.part_folder(), _place, cap, platform.run) as form:
        if "data" not in form.names:
            fact = "Missing required parameter: 'data'."
            raise RequestRefused(fact, param="data", reason="missing_required_parameter")
        part = await platform.run(partial(store.add, upload_id, form.folder / CONTENT))
    return {
        "id": part,
        "object": "upload.part",
        "created_at": int(made_at(part)),
        "upload_id": upload_id,
    }


@router.post("/{upload_id}/complete")
async def complete_upload(
    upload_id: str, body: UploadCompletion, asker: AskerOf, platform: PlatformOf
) -> dict[str, object]:
    """Make the parts one file."""

    def complete() -> tuple[UploadInfo, FileInfo]:
        upload = _find(asker, upload_id)

        def check(path: Path) -> None:
            check_content(path, upload.purpose)

        return _store(platform).complete(upload_id, body.part_ids, body.md5, check)

    return upload_object(*await platform.run(complete))


@router.post("/{upload_id}/cancel")
async def cancel_upload(upload_id: str, asker: AskerOf, platform: PlatformOf) -> dict[str, object]:
    """Give an upload up."""

    def cancel() -> UploadInfo:
        return _store(platform).cancel(_find(asker, upload_id).id)

    return upload_object(await platform.run(cancel))


def upload_object(upload: UploadInfo, file: FileInfo | None = None) -> dict[str, object]:
    """Return the object that a client reads; with its file once it is complete."""
    found: dict[str, object] = {
        "id": upload.id,
        "object": "upload",
        "bytes": upload.size,
        "created_at": upload.created_at,
        "expires_at": upload.ends_at,
        "filename": upload.filename,
        "purpose": upload.purpose,
        "status": upload.status,
    }
    return found if file is None else {**found, "file": file_object(file)}


def _store(platform: Platform) -> UploadStore:
    return platform.registry.catalogue.uploads


def _find(asker: Asker, upload_id: str) -> UploadInfo:
    upload = asker.platform.registry.catalogue.uploads.find(upload_id)
    if not asker.sees(upload.owner):
        raise NotFound("No such Upload object", upload_id, param="upload_id")
    return upload


def _place(part: str, _: str) -> str | None:
    if part == "data":
        return CONTENT
    fact = f"Unknown parameter: '{part[:100]}'."
    raise RequestRefused(fact, param=part[:100], reason="unknown_parameter")
