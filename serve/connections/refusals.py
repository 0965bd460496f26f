"""Answers below HTTP's application: whole, final, and in the shape of every other error.

They are for connections whose request never became one, so they name no request and speak no dialect.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from http import HTTPStatus

from registry.errors import WardrobeError


def final_answer(error: WardrobeError, headers: Iterable[str] = ()) -> bytes:
    """Return the whole answer to `error`, after which the connection closes."""
    lines = list(headers)
    if error.http_status in {429, 503}:
        lines.append(f"retry-after: {getattr(error, 'retry_after_seconds', 1)}")
    fields = {"message": str(error), "type": error.type, "param": error.param, "code": error.code}
    return render(error.http_status, {"error": fields}, lines)


def render(status: int, body: object, headers: Iterable[str] = (), *, headless: bool = False) -> bytes:
    """Return a whole answer with a JSON body that closes the connection; `headless` leaves the body out."""
    content = json.dumps(body).encode()
    lines = [
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
        "content-type: application/json",
        f"content-length: {len(content)}",
        "connection: close",
        *headers,
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + (b"" if headless else content)
