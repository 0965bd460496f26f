"""Errors as OpenAI's and Anthropic's clients read them.

`{"error": {"message", "type", "param", "code"}}`; on Anthropic's paths with the `"type": "error"` and the
types of their own protocol. Errors of this layer pass by vLLM's handlers, so they are rendered here; what
vLLM refuses is put into the same words (`serve.protocol.forwarded`).
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from starlette.types import Message, Send

from registry.errors import Denied, InvalidName, LimitExceeded, WardrobeError
from serve.errors import BadBody, MethodNotAllowed, ModelNotFound, anthropic_type
from serve.protocol.forwarded import ErrorFields
from serve.protocol.paths import Dialect

Headers = Iterable[tuple[bytes, bytes]]

_HOPELESS = frozenset({409, 501, 504})
"""What OpenAI's and Anthropic's clients would send again by themselves, to the same end: a version in
quarantine, what vLLM does not do, and a request that took all the time it may take."""

_encode = msgspec.json.Encoder().encode


class _Body(msgspec.Struct):
    error: ErrorFields


class _Tagged(msgspec.Struct):
    type: str
    error: ErrorFields


class _Event(msgspec.Struct):
    """An error within a stream of responses: OpenAI's own event, and the `error` that its clients raise."""

    type: str
    sequence_number: int
    code: str
    message: str
    param: str | None
    error: ErrorFields


def render_error(error: WardrobeError, dialect: Dialect = Dialect.OPENAI) -> bytes:
    """Return the JSON body of `error`."""
    if dialect is Dialect.MESSAGES:
        kind = anthropic_type(error.http_status)
        return _encode(_Tagged("error", ErrorFields(str(error), kind, error.param, error.code)))
    return _encode(_Body(_inner(error)))


def error_event(error: WardrobeError, dialect: Dialect, number: int = 0) -> bytes:
    """Return `error` as the last event of a stream that must be cut; `number` is its place in it."""
    if dialect is Dialect.OPENAI:
        return b"data: " + render_error(error, dialect) + b"\n\n"
    if dialect is Dialect.MESSAGES:
        data = render_error(error, dialect)
    else:
        inner = _inner(error)
        data = _encode(_Event("error", number, error.code, inner.message, inner.param, inner))
    return b"event: error\ndata: " + data + b"\n\n"


def _inner(error: WardrobeError) -> ErrorFields:
    return ErrorFields(str(error), error.type, error.param, error.code)


async def send_error(
    send: Send, error: WardrobeError, dialect: Dialect = Dialect.OPENAI, headers: Headers = ()
) -> None:
    """Answer with `error`: its own status, Retry-After where waiting helps, and a word where it does not."""
    every = list(headers)
    if error.http_status in _HOPELESS:
        every.append((b"x-should-retry", b"false"))
    if error.http_status in {429, 503}:
        seconds = getattr(error, "retry_after_seconds", 1)
        every.append((b"retry-after", str(seconds).encode()))
    if error.http_status == 401:
        every.append((b"www-authenticate", b"Bearer"))
    await send_json(send, error.http_status, render_error(error, dialect), every)


async def send_json(send: Send, status: int, body: bytes, headers: Headers = ()) -> None:
    """Answer with a JSON body."""
    lines = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *headers]
    start: Message = {"type": "http.response.start", "status": status, "headers": lines}
    await send(start)
    await send({"type": "http.response.body", "body": body, "more_body": False})


async def send_events(send: Send, events: Iterable[bytes]) -> None:
    """Answer with a stream of events that are all there already."""
    lines = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]
    await send({"type": "http.response.start", "status": 200, "headers": lines})
    await send({"type": "http.response.body", "body": b"".join(events), "more_body": False})


def rejection_reason(error: WardrobeError) -> str | None:
    """Return the value of `wardrobe_rejections_total{reason}` for `error`, None when it counts elsewhere."""
    own: str | None = getattr(error, "rejection", None)
    if own is not None:
        return own
    if isinstance(error, Denied):
        return "forbidden" if error.http_status == 403 else "auth"
    if isinstance(error, ModelNotFound):
        return "unknown_model"
    if isinstance(error, LimitExceeded):
        return "body_too_large"
    if isinstance(error, BadBody | InvalidName | MethodNotAllowed):
        return "bad_request"
    return None
