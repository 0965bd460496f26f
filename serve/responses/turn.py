"""One request of the responses API: what it goes on from, and what is kept of its answer."""

from __future__ import annotations

import re

import msgspec
from msgspec import Raw

from serve.errors import BadBody, PreviousNotFound
from serve.responses.items import join_items, mend, needs_mending, read_items, reference_of
from serve.responses.store import ResponseStore, Sees

Fields = dict[str, Raw]

PREVIOUS = "previous_response_id"

NOT_HERE = (
    "is not kept here: a replica keeps what it answered itself, for a while (settings `responses`), "
    "for the key that asked"
)

_ABSENT = (b"null", b'""')
_LAST_EVENT = re.compile(rb"(?:^|\n)event: response\.(?:completed|incomplete)\ndata: ([^\n]*)\n")


class ResponseTurn:
    """What becomes of one request's answer; `keep` is called with it at most once."""

    __slots__ = ("_history", "_inputs", "_owner", "_previous", "_store")

    def __init__(
        self,
        store: ResponseStore,
        owner: str,
        history: tuple[bytes, ...],
        inputs: tuple[bytes, ...],
        previous: str | None,
    ) -> None:
        self._store = store
        self._owner = owner
        self._history = history
        self._inputs = inputs
        self._previous = previous

    def keep(self, answer: bytes, *, streamed: bool) -> None:
        """Keep the response in `answer`, which is all of it, or the last events of its stream."""
        if streamed:
            answer = _last_response(answer)
        self._store.keep(self._owner, answer, self._history, self._inputs, self._previous)


def _last_response(events: bytes) -> bytes:
    """Return the response in the closing event of a stream, nothing where there is none."""
    found = _LAST_EVENT.search(events)
    try:
        event = msgspec.json.decode(found[1], type=dict[str, Raw]) if found is not None else {}
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return b""
    return bytes(event.get("response", b""))


def begin(
    store: ResponseStore, owner: str, fields: Fields, sees: Sees = lambda _: True
) -> ResponseTurn | None:
    """Put the conversation before a request into its `input`, and return what is to be kept of it.

    `fields` are changed: `input` holds what came before, vLLM is told to store nothing, and
    `previous_response_id` stays only to say that this is no first turn. What may not be seen by `sees` is as
    if it were not kept. None: the answer is not kept.

    Raises: BadBody: `store` or a response before it, where nothing is kept. PreviousNotFound.
    """
    previous = _previous(fields)
    told = bytes(fields.get("store", b"null"))
    if not store.enabled and (previous is not None or told == b"true"):
        raise _not_kept(PREVIOUS if previous is not None else "store")
    fields["store"] = Raw(b"false")
    raw = fields.get("input")
    wanted = store.enabled and told != b"false"
    if raw is None or not (wanted or previous is not None or needs_mending(raw)):
        return None
    given = read_items(raw)
    inputs = _resolved(store, owner, sees, mend(given) if needs_mending(raw) else given)
    history = _history(store, owner, sees, previous) if previous is not None else ()
    if history or inputs != given:
        fields["input"] = join_items([*history, *inputs])
    return ResponseTurn(store, owner, history, tuple(inputs), previous) if wanted else None


def _previous(fields: Fields) -> str | None:
    raw = fields.get(PREVIOUS)
    if raw is None:
        return None
    if bytes(raw) in _ABSENT:
        del fields[PREVIOUS]
        return None
    try:
        return msgspec.json.decode(raw, type=str)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BadBody(PREVIOUS, "is not a string", "send the id of a response", param=PREVIOUS) from error


def _history(store: ResponseStore, owner: str, sees: Sees, previous: str) -> tuple[bytes, ...]:
    kept = store.find(owner, previous, sees)
    if kept is None:
        raise PreviousNotFound(
            previous[:200], NOT_HERE, "send the whole conversation as `input`", param=PREVIOUS
        )
    return kept.items


def _resolved(store: ResponseStore, owner: str, sees: Sees, items: list[bytes]) -> list[bytes]:
    """Return `items` with what they only refer to, as Vercel's SDK does with turns that it was given."""
    if not any(b'"item_reference"' in item for item in items):
        return items
    return [_referred(store, owner, sees, item) for item in items]


def _referred(store: ResponseStore, owner: str, sees: Sees, item: bytes) -> bytes:
    identity = reference_of(item)
    if identity is None:
        return item
    found = store.find_item(owner, identity, sees)
    if found is None:
        raise BadBody(f"item {identity[:200]}", NOT_HERE, "send the item itself", param="input")
    return found


def _not_kept(param: str) -> BadBody:
    fact = "this server keeps no responses (responses.max_bytes is 0)"
    return BadBody(
        param, fact, "send the whole conversation as `input`, or raise responses.max_bytes", param=param
    )
