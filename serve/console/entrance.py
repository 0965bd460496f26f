"""How a browser that opens the server's address comes to the console; programs are told: nothing is there."""

from __future__ import annotations

from starlette.types import Scope, Send

HOME = "/console"
"""The path of the console; every page and cookie of it lies below."""


def leads_in(scope: Scope) -> bool:
    """Return whether a request is a browser's for the bare address."""
    if scope["raw_path"] != b"/" or scope["method"] not in {"GET", "HEAD"}:
        return False
    return b"text/html" in dict(scope["headers"]).get(b"accept", b"")


async def send_in(send: Send) -> None:
    """Answer that the console is elsewhere."""
    headers = [(b"location", HOME.encode()), (b"vary", b"Accept"), (b"content-length", b"0")]
    await send({"type": "http.response.start", "status": 307, "headers": headers})
    await send({"type": "http.response.body", "body": b"", "more_body": False})
