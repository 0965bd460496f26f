"""`/v1/responses/ID`: what is asked of a kept response. A key sees its own, of what exists for its group."""

from __future__ import annotations

from starlette.types import Scope, Send

from serve.protocol.paths import Endpoint
from serve.responses import answers as kept
from serve.responses.answers import ResponseQuery
from serve.responses.store import ResponseStore
from serve.router.access import CallerAccess
from serve.router.endpoints.openai_errors import send_events, send_json


async def tell_stored(
    store: ResponseStore, access: CallerAccess, who: str, endpoint: Endpoint, scope: Scope, send: Send
) -> None:
    """Answer what is asked of a kept response: all of it, its items, its end.

    Raises: ResponseNotFound; BadBody.
    """
    item, query = endpoint.item, ResponseQuery(scope["query_string"])
    if not access.sees_answer(item):
        raise kept.not_found(item)
    if scope["method"] == "DELETE":
        await send_json(send, 200, kept.delete(store, who, item))
    elif endpoint.part == "cancel":
        kept.cancel(store, who, item)
    elif endpoint.part == "input_items":
        await send_json(send, 200, kept.input_items(kept.find(store, who, item), query))
    elif query.text("stream") in {"true", "1"}:
        events = kept.events(kept.find(store, who, item), query.number("starting_after", -1))
        await send_events(send, events)
    else:
        await send_json(send, 200, kept.whole(kept.find(store, who, item)))
