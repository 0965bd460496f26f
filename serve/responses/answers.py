"""`/v1/responses/ID`: a kept response again, as one answer or as a stream; its items; and forgetting it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import parse_qs

import msgspec

from serve.errors import BadBody, ResponseNotFound
from serve.responses.items import identity_of, shown_item
from serve.responses.store import Kept, ResponseStore
from serve.responses.turn import NOT_HERE

_MOST_ITEMS = 100
_ITEMS = 20
"""How many items a page holds where the client names no limit: OpenAI's own figure."""

_encode = msgspec.json.Encoder().encode


class ResponseQuery:
    """The query of a request for a kept response, checked."""

    def __init__(self, text: bytes) -> None:
        self._given = parse_qs(text.decode("latin-1"))

    def text(self, name: str) -> str:
        """Return a parameter, empty where it was not sent."""
        return self._given.get(name, [""])[-1]

    def number(self, name: str, otherwise: int) -> int:
        """Return a whole number that is not negative.

        Raises: BadBody.
        """
        value = self.text(name)
        if not value:
            return otherwise
        if not (value.isascii() and value.isdigit()) or len(value) > 9:
            raise BadBody(name, f"{value[:40]!r} is not a whole number", "correct it", param=name)
        return int(value)


def find(store: ResponseStore, owner: str, response_id: str) -> Kept:
    """Return a kept response.

    Raises: ResponseNotFound: it is not kept here, or is somebody else's.
    """
    kept = store.find(owner, response_id)
    if kept is None:
        raise not_found(response_id)
    return kept


def not_found(response_id: str) -> ResponseNotFound:
    """Return the error that a response is not kept here."""
    return ResponseNotFound(f"response {response_id}", NOT_HERE, "ask again, or check the id")


def delete(store: ResponseStore, owner: str, response_id: str) -> bytes:
    """Forget a response and return the answer to that.

    Raises: ResponseNotFound.
    """
    find(store, owner, response_id)
    store.remove(owner, response_id)
    return _encode({"id": response_id, "object": "response", "deleted": True})


def cancel(store: ResponseStore, owner: str, response_id: str) -> None:
    """Refuse to cancel what is complete: only background responses could be, and there are none.

    Raises: BadBody. ResponseNotFound.
    """
    find(store, owner, response_id)
    raise BadBody(f"response {response_id}", "is complete; only background responses can be cancelled")


def whole(kept: Kept) -> bytes:
    """Return a response as it was given, with the id of the one before it."""
    return _encode(_document(kept))


def events(kept: Kept, after: int) -> Iterator[bytes]:
    """Yield a response as the events of a stream, from number `after` + 1 on."""
    document = _document(kept)
    begun: dict[str, Any] = {**document, "status": "in_progress", "output": [], "usage": None}
    told: list[tuple[str, Mapping[str, Any]]] = [("response.created", {"response": begun})]
    for index, item in enumerate(kept.outputs):
        told.append(("response.output_item.done", {"output_index": index, "item": msgspec.Raw(item)}))
    told.append(("response.completed", {"response": document}))
    for number, (kind, body) in enumerate(told):
        if number > after:
            data = _encode({"type": kind, "sequence_number": number, **body})
            yield b"event: " + kind.encode() + b"\ndata: " + data + b"\n\n"


def input_items(kept: Kept, query: ResponseQuery) -> bytes:
    """Return a page of what the model was asked, newest first unless the query says `order=asc`.

    Raises: BadBody: a query that names no page.
    """
    limit = query.number("limit", _ITEMS)
    if not 1 <= limit <= _MOST_ITEMS:
        raise BadBody("limit", f"{limit} is not 1 to {_MOST_ITEMS}", "correct it", param="limit")
    found = _listed(kept)
    if query.text("order") != "asc":
        found.reverse()
    if after := query.text("after"):
        place = next((n for n, one in enumerate(found) if one["id"] == after), None)
        if place is None:
            raise BadBody("after", f"{after[:100]} is not an item of it", "correct it", param="after")
        found = found[place + 1 :]
    page = found[:limit]
    ends = {"first_id": page[0]["id"] if page else None, "last_id": page[-1]["id"] if page else None}
    return _encode({"object": "list", "data": page, **ends, "has_more": len(found) > limit})


def _document(kept: Kept) -> dict[str, msgspec.Raw]:
    document = msgspec.json.decode(kept.answer, type=dict[str, msgspec.Raw])
    document["previous_response_id"] = msgspec.Raw(_encode(kept.previous))
    return document


def _listed(kept: Kept) -> list[dict[str, Any]]:
    """Return the items before the answer; one without an id is known by its place."""
    items = (*kept.history, *kept.inputs)
    return [shown_item(item, identity_of(item) or f"item_{place}") for place, item in enumerate(items)]
