"""The routes of `/v1/fine_tuning`; the router mounts them beside the other platform endpoints.

What is asked with an empty body (cancel, pause, resume) needs no content type.
"""

from __future__ import annotations

import re
from functools import partial
from typing import Annotated, Any
from weakref import WeakKeyDictionary

from fastapi import APIRouter, Query, Request
from pydantic import Field

from registry.api.documents import Request as RequestDocument
from registry.tuning.machine import JobEvent
from serve.openai.asker import AskerOf, Platform, PlatformOf
from serve.openai.errors import RequestRefused
from serve.tuning.creation import CreateAttempt
from serve.tuning.graders import require_allowed, require_allowed_rewards
from serve.tuning.jobs import JobDesk
from serve.tuning.parameters import CreateJob

router = APIRouter(prefix="/v1/fine_tuning")

MAX_PAGE = 1_000
_MAX_KEY = 255
_METADATA = re.compile(r"metadata\[(.+)\]")
_REPEATED = "x-stainless-retry-count"
"""Sent by all of OpenAI's clients with each request: how often they sent it before."""

After = Annotated[str | None, Query(max_length=100)]
Limit = Annotated[int, Query(ge=1, le=MAX_PAGE)]

_desks: WeakKeyDictionary[Platform, JobDesk] = WeakKeyDictionary()


class GrantRequest(RequestDocument):
    """Projects that shall be allowed to use a checkpoint."""

    project_ids: Annotated[list[str], Field(min_length=1)]


@router.post("/jobs")
async def create_job(
    body: CreateJob, request: Request, asker: AskerOf, platform: PlatformOf
) -> dict[str, Any]:
    """Make a fine-tuning job."""
    if body.method is not None and body.method.reinforcement is not None:
        require_allowed(body.method.reinforcement.grader, platform, "method.reinforcement.grader")
    require_allowed_rewards(body.x_wardrobe or {}, platform)
    return await platform.run(partial(_desk(platform).create, asker, body, _attempt(request)))


@router.get("/jobs")
async def list_jobs(
    request: Request, asker: AskerOf, platform: PlatformOf, after: After = None, limit: Limit = 20
) -> dict[str, Any]:
    """List fine-tuning jobs, newest first."""
    metadata, unnamed = _metadata(request)
    call = partial(_desk(platform).list, asker, after=after, limit=limit, metadata=metadata, unnamed=unnamed)
    return await platform.run(call)


@router.get("/jobs/{job_id}")
async def show_job(job_id: str, asker: AskerOf, platform: PlatformOf) -> dict[str, Any]:
    """Show a fine-tuning job."""
    return await platform.run(partial(_desk(platform).show, asker, job_id))


@router.post("/jobs/{job_id}/cancel")
async def cancel_job(job_id: str, asker: AskerOf, platform: PlatformOf) -> dict[str, Any]:
    """Cancel a fine-tuning job."""
    return await platform.run(partial(_desk(platform).move, asker, job_id, JobEvent.CANCELLED))


@router.post("/jobs/{job_id}/pause")
async def pause_job(job_id: str, asker: AskerOf, platform: PlatformOf) -> dict[str, Any]:
    """Pause a fine-tuning job; it keeps a checkpoint."""
    return await platform.run(partial(_desk(platform).move, asker, job_id, JobEvent.PAUSED))


@router.post("/jobs/{job_id}/resume")
async def resume_job(job_id: str, asker: AskerOf, platform: PlatformOf) -> dict[str, Any]:
    """Go on with a paused fine-tuning job."""
    return await platform.run(partial(_desk(platform).move, asker, job_id, JobEvent.RESUMED))


@router.get("/jobs/{job_id}/events")
async def list_events(
    job_id: str, asker: AskerOf, platform: PlatformOf, after: After = None, limit: Limit = 20
) -> dict[str, Any]:
    """List what happened to a fine-tuning job, newest first."""
    return await platform.run(partial(_desk(platform).events, asker, job_id, after=after, limit=limit))


@router.get("/jobs/{job_id}/checkpoints")
async def list_checkpoints(
    job_id: str, asker: AskerOf, platform: PlatformOf, after: After = None, limit: Limit = 10
) -> dict[str, Any]:
    """List the checkpoints of a fine-tuning job, newest first."""
    return await platform.run(partial(_desk(platform).checkpoints, asker, job_id, after=after, limit=limit))


@router.get("/checkpoints/{name:path}/permissions")
async def list_permissions(name: str, asker: AskerOf, platform: PlatformOf) -> dict[str, Any]:
    """List who else may use a checkpoint: nobody is named, as a key's group says which adapters it has."""
    await platform.run(partial(_desk(platform).require_checkpoint, asker, name))
    return {"object": "list", "data": [], "has_more": False, "first_id": None, "last_id": None}


@router.post("/checkpoints/{name:path}/permissions")
async def grant_permissions(
    name: str, body: GrantRequest, asker: AskerOf, platform: PlatformOf
) -> dict[str, Any]:
    """Refuse to grant a checkpoint to a project: there are none here."""
    await platform.run(partial(_desk(platform).require_checkpoint, asker, name))
    raise _no_projects(f"project_ids: {', '.join(body.project_ids)[:100]}")


@router.delete("/checkpoints/{name:path}/permissions/{permission_id}")
async def revoke_permission(
    name: str, permission_id: str, asker: AskerOf, platform: PlatformOf
) -> dict[str, Any]:
    """Refuse to take back what cannot be granted."""
    await platform.run(partial(_desk(platform).require_checkpoint, asker, name))
    raise _no_projects(f"permission {permission_id[:100]}")


def _desk(platform: Platform) -> JobDesk:
    desk = _desks.get(platform)
    if desk is None:
        desk = _desks[platform] = JobDesk(platform)
    return desk


def _attempt(request: Request) -> CreateAttempt:
    count, key = request.headers.get(_REPEATED, "0"), request.headers.get("idempotency-key", "")
    if len(key) > _MAX_KEY:
        raise RequestRefused(
            f"The Idempotency-Key is longer than {_MAX_KEY} characters.", reason="invalid_value"
        )
    return CreateAttempt(repeated=count.isdigit() and int(count) > 0, key=key)


def _metadata(request: Request) -> tuple[dict[str, str], bool]:
    found: dict[str, str] = {}
    unnamed = False
    for key, value in request.query_params.multi_items():
        if key == "metadata" and value == "null":
            unnamed = True
        elif match := _METADATA.fullmatch(key):
            found[match[1]] = value
    return found, unnamed


def _no_projects(subject: str) -> RequestRefused:
    message = f"{subject}: there are no projects here; a key's group says which adapters it may use."
    return RequestRefused(message, param="project_ids", reason="projects_not_supported")
