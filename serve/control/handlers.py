"""The handlers of rows that a function on the root cannot answer: files, what is in memory, this process.

Owns the forms of uploads and downloads; the paths are the table's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import Body, Path, Request, Response
from starlette.responses import FileResponse

from registry.api import documents as doc
from registry.api import operations
from registry.api.operation import Operation
from registry.changes.publish import PublishRequest
from registry.errors import NotFound
from registry.names import STABLE
from registry.records import AdapterBrief
from registry.validation.peft import CONFIG_NAME
from registry.validation.requirements import parse_requirements
from registry.views.view import AdapterView
from serve.control.caller import CallerOf, ControlOf
from serve.control.routes import Name, Number, OwnRoute
from serve.control.upload import UploadForm, received

_UPLOAD_SCHEMA = {
    "type": "object",
    "required": ["files"],
    "properties": {
        "files": {"type": "array", "items": {"type": "string", "format": "binary"}},
        "golden": {"type": "string", "format": "binary"},
        "alias": {"type": "string"},
        "no_stable": {"type": "boolean"},
        "note": {"type": "string"},
        "allow_duplicate": {"type": "boolean"},
        "require": {"type": "string", "description": "gate, parity, tokens; several with commas"},
    },
}
_UPLOAD = {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _UPLOAD_SCHEMA}}}}


async def list_adapters(control: ControlOf) -> doc.AdapterList:
    """List every adapter in brief, from memory."""
    view = control.state.watcher.view
    return doc.AdapterList(adapters=[brief_of(one) for _, one in sorted(view.adapters.items())])


async def upload_version(
    name: Name, request: Request, response: Response, control: ControlOf, caller: CallerOf
) -> doc.PublishedDocument:
    """Publish the uploaded files of a PEFT LoRA folder as the adapter's next version."""
    staging = control.registry.root / "staging"
    async with received(request, name, staging, control.state.limits.max_upload_bytes, control.run) as form:
        arguments = {"request": _requested(name, form), "advance": lambda _: None}
        published = await caller.answer(operations.register, arguments)
    if not published.created:
        response.status_code = 200
    return published


async def download_file(
    name: Name,
    number: Number,
    file: Annotated[str, Path(description="A file of the version, by its manifest.", examples=[CONFIG_NAME])],
    control: ControlOf,
) -> FileResponse:
    """Send one file of a version; only files that its manifest lists exist."""
    version = await control.run(lambda: control.registry.version(name, number))
    if file not in {entry.path for entry in version.files}:
        listed = ", ".join(entry.path for entry in version.files)
        raise NotFound(
            f"{version.name}/{file}", "is not a file of the version", f"it has {listed}", param="file"
        )
    return FileResponse(version.path / file, media_type="application/octet-stream")


async def show_drain(control: ControlOf) -> doc.DrainDocument:
    """Say whether this replica is draining."""
    return doc.DrainDocument(replica=control.state.replica, draining=control.state.draining)


async def drain(
    control: ControlOf, body: Annotated[doc.DrainRequest | None, Body()] = None
) -> doc.DrainDocument:
    """Let this replica refuse new work and finish what it has (or, with `draining` false, resume)."""
    control.state.drain((body or doc.DrainRequest()).draining)
    return doc.DrainDocument(replica=control.state.replica, draining=control.state.draining)


OWN: Mapping[Operation[..., Any], OwnRoute] = {
    operations.list_adapters: OwnRoute(list_adapters),
    operations.register: OwnRoute(
        upload_version,
        {
            "openapi_extra": _UPLOAD,
            "responses": {
                200: {"model": doc.PublishedDocument, "description": "The content existed already."}
            },
        },
    ),
    operations.export: OwnRoute(download_file, {"response_class": FileResponse}),
    operations.show_drain: OwnRoute(show_drain),
    operations.drain: OwnRoute(drain),
}
"""Who answers which row here."""


def _requested(name: str, form: UploadForm) -> PublishRequest:
    return PublishRequest(
        adapter=name,
        folder=form.folder,
        alias=form.text("alias") or None,
        no_stable=form.flag("no_stable"),
        note=form.text("note"),
        golden=form.golden,
        allow_duplicate=form.flag("allow_duplicate"),
        require=parse_requirements([one for one in form.text("require").split(",") if one], "require"),
        follow_links=False,  # the folder is ours, and what is in it came from outside
    )


def brief_of(one: AdapterView) -> AdapterBrief:
    """Return an adapter at a glance."""
    numbers = one.versions.keys() | one.quarantined.keys()
    return AdapterBrief(
        adapter=one.name,
        stable=one.aliases.get(STABLE),
        stable_quarantined=one.aliases.get(STABLE) in one.quarantined,
        latest=max(numbers),
        versions=len(numbers),
        aliases=dict(sorted(one.aliases.items())),
    )
