"""An error of vLLM in this server's own words: one dialect of `type` and `code`, whoever refused.

vLLM writes `"type": "BadRequestError", "code": 400`, FastAPI `{"detail": …}`, and a request with a fault in
a union every branch of it. Pure functions of a status and a body; nothing here sees a good answer.
"""

from __future__ import annotations

import re
from collections.abc import Collection

import msgspec

from serve.errors import Forwarded

MAX_BYTES = 64 * 1024
"""How much of an error is read; vLLM's own stay far below."""

_WORDS = 600
"""Characters of a message that are passed on."""

_SHOWN = 3
"""Validation errors that are told; the rest is counted."""

_PROMPTS = ("messages", "prompt", "input")
"""The fields that fill the context."""

_OVERFLOW = re.compile(
    r"maximum context length|exceeds the max_model_len|maximum model length|exceeds model's maximum"
)
_COUNT = re.compile(r"(\d+) validation errors?:")
_FAULT = re.compile(r"'loc': '([^']*)', 'msg': (?:'((?:[^'\\]|\\.)*)'|\"((?:[^\"\\]|\\.)*)\")")

# The answer of a model that was made to call a tool, and is not a call: vLLM blames the request.
_NO_CALL = re.compile(
    r"validation errors? for AnthropicContentBlock|^[A-Z][^\n]{0,80}: line \d+ column \d+ \(char \d+\)$"
)

_KINDS = {
    404: ("invalid_request_error", "not_found"),
    405: ("invalid_request_error", "method_not_allowed"),
    413: ("invalid_request_error", "limit_exceeded"),
    429: ("rate_limit_error", "rate_limit_exceeded"),
    501: ("invalid_request_error", "unsupported"),
    503: ("server_error", "server_is_overloaded"),
}


class ErrorFields(msgspec.Struct):
    """What stands in an OpenAI-shaped `error`, as it is read from an engine and written to a client."""

    message: str = ""
    type: str = ""
    param: str | None = None
    code: int | str | None = None


class _Body(msgspec.Struct):
    error: ErrorFields | str | None = None
    detail: str | None = None
    message: str | None = None


_decode = msgspec.json.Decoder(_Body, strict=False).decode


def read_forwarded(status: int, body: bytes, fields: Collection[str], *, messages: bool = False) -> Forwarded:
    """Return the error in `body`, which came with `status`; `fields` are those of the request.

    `messages` says that the path speaks Anthropic's protocol.
    """
    return _translate(status, _read(body), fields, messages)


def read_event(event: bytes, fields: Collection[str], *, messages: bool = False) -> Forwarded | None:
    """Return the error in one event of a stream, None where it holds none."""
    begin = event.find(b"data: ")
    if begin < 0:
        return None
    inner = _read(event[begin + 6 :].split(b"\n", 1)[0])
    status = inner.code if isinstance(inner.code, int) and 400 <= inner.code < 600 else 500
    return _translate(status, inner, fields, messages)


def _read(body: bytes) -> ErrorFields:
    """Return what can be read of an error, whatever its form."""
    try:
        found = _decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return ErrorFields(body[:_WORDS].decode("utf-8", "replace"))
    if isinstance(found.error, ErrorFields):
        return found.error
    return ErrorFields(found.error or found.detail or found.message or "")


def _translate(status: int, inner: ErrorFields, fields: Collection[str], messages: bool) -> Forwarded:
    text = inner.message.strip()
    param = _param(inner.param)
    if messages and status == 400 and _NO_CALL.search(text):
        fact = "the model's answer is not a valid call of the tool that it was made to call"
        return Forwarded(500, f"{fact}; ask again, or give the tool `strict: true`", code="engine_error")
    if status < 500 and _OVERFLOW.search(text):
        # What clients look for: Anthropic's by these words, OpenAI's by the code.
        text = f"prompt is too long: {text}" if messages else text
        place = next((name for name in _PROMPTS if name in fields), param)
        return Forwarded(status, _short(text), param=place, code="context_length_exceeded")
    if status == 404 and param == "model":
        return Forwarded(status, _short(text), param=param, code="model_not_found")
    default = (
        ("invalid_request_error", "invalid_request") if status < 500 else ("server_error", "engine_error")
    )
    kind, code = _KINDS.get(status, default)
    return Forwarded(status, _short(text) or f"status {status}", kind=kind, param=param, code=code)


def _param(param: str | None) -> str | None:
    """Return the field at fault as the client wrote it; vLLM puts `body.` before it."""
    if param in {"input_tokens", "input_text"}:
        return None
    return (param or "").removeprefix("body.")[:200] or None


def _short(text: str) -> str:
    """Return a message that a person reads to its end."""
    counted = _COUNT.match(text)
    if counted is not None:
        faults = [
            f"{place.removeprefix('body.')}: {one or other}" for place, one, other in _FAULT.findall(text)
        ]
        if faults:
            rest = int(counted[1]) - len(faults[:_SHOWN])
            shown = "; ".join(faults[:_SHOWN])
            text = f"{shown}; and {rest} more" if rest > 0 else shown
    text = " ".join(text.split())
    return text if len(text) <= _WORDS else f"{text[:_WORDS]} …"
