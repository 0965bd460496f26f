"""`/v1/batches`: making, telling of and cancelling batches; who answers them is `runner.py`'s business."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import JsonValue

from registry.entries.openai.batch_states import BatchEvent, BatchState
from registry.entries.openai.batches import Batch
from registry.entries.openai.files import FilePurpose
from registry.entries.openai.ids import made_at
from registry.entries.rights import Scope
from registry.errors import Conflict, NotFound
from serve.openai.asker import Asker, AskerOf, PlatformOf
from serve.openai.bodies import ExpiresAfter, Metadata, RequestBody
from serve.openai.errors import RequestRefused
from serve.openai.files import find_input
from serve.openai.pages import cut, listed

router = APIRouter(prefix="/v1/batches")

_WINDOW_SECONDS = {"24h": 86_400}
_STAMPS = {
    BatchEvent.STARTED: "in_progress_at",
    BatchEvent.ANSWERED: "finalizing_at",
    BatchEvent.WITHDRAWN: "cancelling_at",
    BatchEvent.COMPLETED: "completed_at",
    BatchEvent.FAILED: "failed_at",
    BatchEvent.EXPIRED: "expired_at",
    BatchEvent.CANCELLED: "cancelled_at",
}


class CreateBatch(RequestBody):
    """What shall be answered, and by when."""

    input_file_id: str
    endpoint: Literal["/v1/chat/completions", "/v1/completions", "/v1/embeddings"]
    completion_window: Literal["24h"]
    metadata: Metadata | None = None
    output_expires_after: ExpiresAfter | None = None


@router.post("")
async def create_batch(body: CreateBatch, asker: AskerOf, platform: PlatformOf) -> dict[str, object]:
    """Make a batch."""
    if not platform.state.keys.allows(asker.who, Scope.INFER):
        fact = f"Key {asker.who} may not ask models: its batches would be refused line by line."
        raise RequestRefused(fact, reason="insufficient_scope", status=403)
    expiry = body.output_expires_after

    def create() -> dict[str, object]:
        file = find_input(asker, body.input_file_id, FilePurpose.BATCH, "input_file_id")
        batch = platform.registry.catalogue.batches.create(
            body.endpoint,
            file.id,
            who=asker.who,
            window=body.completion_window,
            window_seconds=_WINDOW_SECONDS[body.completion_window],
            metadata=body.metadata,
            output_lifetime=None if expiry is None else expiry.seconds,
        )
        return batch_object(batch)

    return await platform.run(create)


@router.get("")
async def list_batches(
    asker: AskerOf,
    platform: PlatformOf,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    after: str | None = None,
) -> dict[str, object]:
    """List the batches of who asks, the newest first."""

    def find() -> dict[str, object]:
        every = platform.registry.catalogue.batches.list(asker.filter)
        page, more = cut(every, lambda one: one.id, after=after, limit=limit)
        return listed([batch_object(one) for one in page], more=more)

    return await platform.run(find)


@router.get("/{batch_id}")
async def retrieve_batch(batch_id: str, asker: AskerOf, platform: PlatformOf) -> dict[str, object]:
    """Tell how far a batch has come."""
    return await platform.run(lambda: batch_object(_find(asker, batch_id)))


@router.post("/{batch_id}/cancel")
async def cancel_batch(batch_id: str, asker: AskerOf, platform: PlatformOf) -> dict[str, object]:
    """Ask nothing more of a batch; what was answered is kept. Cancelling it again changes nothing."""
    return await platform.run(partial(_cancel, asker, batch_id))


def batch_object(batch: Batch) -> dict[str, object]:
    """Return the object that a client reads; blocks.

    Raises: NotFound: it was removed; CorruptStore; StorageFailed.
    """
    request, log = batch.request, batch.log()
    facts: dict[str, JsonValue] = {}
    stamps: dict[str, object] = {}
    for entry in log:
        facts |= entry.facts
        if entry.event in _STAMPS:
            stamps[_STAMPS[entry.event]] = int(entry.at)
    found: dict[str, object] = {
        "id": request.id,
        "object": "batch",
        "endpoint": request.endpoint,
        "input_file_id": request.input_file,
        "completion_window": request.window,
        "status": log[-1].state,
        "created_at": int(made_at(request.id)),
        "expires_at": request.ends_at,
        "request_counts": _counts(batch, facts),
        "metadata": request.metadata,
        **stamps,
    }
    if facts.get("model"):
        found["model"] = facts["model"]
    if "errors" in facts:
        found["errors"] = {"object": "list", "data": facts["errors"]}
    return found | _results(facts)


def _counts(batch: Batch, facts: Mapping[str, JsonValue]) -> dict[str, object]:
    told = facts.get("counts")
    if not isinstance(told, dict):
        progress = batch.progress()
        told = {"completed": progress.completed, "failed": progress.failed}
    return {"total": facts.get("total", 0), **told}


def _results(facts: Mapping[str, JsonValue]) -> dict[str, object]:
    files, used = facts.get("files"), facts.get("usage")
    found: dict[str, object] = {}
    if isinstance(files, dict):
        found |= {f"{kind}_file_id": name for kind, name in files.items() if name is not None}
    if isinstance(used, dict):
        found["usage"] = {
            "input_tokens": used["input"],
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": used["output"],
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": used["total"],
        }
    return found


def _cancel(asker: Asker, batch_id: str) -> dict[str, object]:
    batch = _find(asker, batch_id)
    if batch.last().state not in {BatchState.CANCELLING, BatchState.CANCELLED}:
        try:
            batch.append(BatchEvent.WITHDRAWN, who=asker.who)
        except Conflict as error:
            fact = f"Cannot cancel a batch with status '{batch.last().state}'."
            raise RequestRefused(fact, param="batch_id") from error
    return batch_object(batch)


def _find(asker: Asker, batch_id: str) -> Batch:
    batch = asker.platform.registry.catalogue.batches.find(batch_id)
    if not asker.sees(batch.request.who):
        raise NotFound("No batch found with id", f"'{batch_id[:100]}'.", param="batch_id")
    return batch
