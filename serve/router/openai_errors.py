"""Errors as OpenAI's clients read them.

`{"error": {"message", "type", "param", "code"}}`; Anthropic's clients also find the `"type": "error"` of
their own protocol beside it. Errors of this layer pass by vLLM's handlers, so they are rendered here.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from starlette.types import Message, Send

from registry.errors import Denied, InvalidName, LimitExceeded, WardrobeError
from serve.errors import BadBody, MethodNotAllowed, ModelNotFound
from serve.router.paths import Dialect

Headers = Iterable[tuple[bytes, bytes]]

_encode = msgspec.json.Encoder().encode


class _Error(msgspec.Struct):
    message: str
    type: str
    param: str | None
    code: str


class _Body(msgspec.Struct, omit_defaults=True):
    error: _Error
    type: str = ""


def render_error(error: WardrobeError, dialect: Dialect = Dialect.OPENAI) -> bytes:
    """Return the JSON body of `error`."""
    inner = _Error(str(error), error.type, error.param, error.code)
    return _encode(_Body(inner, "error" if dialect is Dialect.MESSAGES else ""))


def error_event(error: WardrobeError, dialect: Dialect) -> bytes:
    """Return `error` as the last event of a stream that must be cut."""
    data = render_error(error, dialect)
    return (
        b"data: " + data + b"\n\n" if dialect is Dialect.OPENAI else b"event: error\ndata: " + data + b"\n\n"
    )


async def send_error(
    send: Send, error: WardrobeError, dialect: Dialect = Dialect.OPENAI, headers: Headers = ()
) -> None:
    """Answer with `error`: its own status, and Retry-After where waiting helps."""
    every = list(headers)
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
