"""Routes about adapters: what there is, new versions, aliases, deletion."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request, Response
from starlette.responses import FileResponse

from registry.api import documents as doc
from registry.api.desk import Registration
from registry.errors import NotFound
from registry.names import STABLE
from registry.validation.peft import CONFIG_NAME
from registry.validation.requirements import parse_requirements
from registry.views.view import AdapterView
from serve.control.caller import CallerOf, ControlOf, Name, caller_of
from serve.control.errors import REFUSALS
from serve.control.schema import ALIAS
from serve.control.upload import UploadForm, received

adapters = APIRouter(
    prefix="/adapters", tags=["adapters"], responses=REFUSALS, dependencies=[Depends(caller_of)]
)


Number = Annotated[int, Path(ge=1, le=999_999_999, description="The version's number.", examples=[3])]
Alias = Annotated[
    str,
    Path(
        description="The alias: `stable`, or one of your own.", json_schema_extra=ALIAS, examples=["stable"]
    ),
]

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


@adapters.get("")
async def list_adapters(control: ControlOf) -> doc.AdapterList:
    """List every adapter in brief, from memory."""
    view = control.state.watcher.view
    return doc.AdapterList(adapters=[_summary(one) for _, one in sorted(view.adapters.items())])


@adapters.get("/{name}")
async def show_adapter(name: Name, caller: CallerOf) -> doc.AdapterDocument:
    """Show one adapter with its live versions."""
    return await caller.read(lambda desk: desk.show(name))


@adapters.get("/{name}/history")
async def show_history(name: Name, caller: CallerOf) -> doc.HistoryDocument:
    """Show every move of the adapter's aliases, oldest first."""
    return await caller.read(lambda desk: desk.history(name))


@adapters.get("/{name}/versions")
async def list_versions(name: Name, caller: CallerOf) -> doc.AdapterDocument:
    """Show one adapter with its live versions (the same as without `/versions`)."""
    return await caller.read(lambda desk: desk.show(name))


@adapters.post(
    "/{name}/versions",
    status_code=201,
    openapi_extra=_UPLOAD,
    responses={200: {"model": doc.PublishedDocument, "description": "The content existed already."}},
)
async def upload_version(
    name: Name, request: Request, response: Response, control: ControlOf, caller: CallerOf
) -> doc.PublishedDocument:
    """Publish the uploaded files of a PEFT LoRA folder as the adapter's next version."""
    staging = control.registry.root / "staging"
    async with received(request, name, staging, control.state.limits.max_upload_bytes, control.run) as form:
        wanted = _registration(name, form)
        published = await caller.write(lambda desk: desk.register(wanted, lambda _: None))
    if not published.created:
        response.status_code = 200
    return published


@adapters.get("/{name}/versions/{number}")
async def show_version(name: Name, number: Number, caller: CallerOf) -> doc.VersionDetail:
    """Show one version with its files and attestations."""
    return await caller.read(lambda desk: desk.show_version(name, number))


@adapters.get("/{name}/versions/{number}/files/{file}", response_class=FileResponse)
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


@adapters.delete("/{name}/versions/{number}")
async def delete_version(name: Name, number: Number, caller: CallerOf) -> doc.DeletedDocument:
    """Put a tombstone on a version; refused while an alias or an open rollout uses it."""
    return await caller.write(lambda desk: desk.delete(name, number))


@adapters.put("/{name}/aliases/{alias}")
async def set_alias(name: Name, alias: Alias, body: doc.MoveRequest, caller: CallerOf) -> doc.MoveDocument:
    """Point an alias to a version, at once."""
    return await caller.write(lambda desk: desk.set_alias(name, alias, body.version, body.force))


@adapters.delete("/{name}/aliases/{alias}")
async def remove_alias(name: Name, alias: Alias, caller: CallerOf) -> doc.MoveDocument:
    """Remove an alias, at once; its history stays.

    Without `stable` the bare name is answered with 404 until a version is promoted; every version is still
    served by its number. `stable` is not removed while a rollout is open.
    """
    return await caller.write(lambda desk: desk.remove_alias(name, alias))


@adapters.post("/{name}/promote")
async def promote(name: Name, body: doc.MoveRequest, caller: CallerOf) -> doc.MoveDocument:
    """Make a version the stable one, at once."""
    return await caller.write(lambda desk: desk.promote(name, body.version, body.force))


@adapters.post("/{name}/rollback")
async def rollback(name: Name, caller: CallerOf) -> doc.MoveDocument:
    """Undo the last forward move of `stable`, at once."""
    return await caller.write(lambda desk: desk.rollback(name))


def _registration(name: str, form: UploadForm) -> Registration:
    return Registration(
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


def _summary(one: AdapterView) -> doc.AdapterSummary:
    numbers = one.versions.keys() | one.quarantined.keys()
    return doc.AdapterSummary(
        adapter=one.name,
        stable=one.aliases.get(STABLE),
        stable_quarantined=one.aliases.get(STABLE) in one.quarantined,
        latest=max(numbers),
        versions=len(numbers),
        aliases=dict(sorted(one.aliases.items())),
    )
