"""Asks the server behind the router, from inside: golden prompts have no client."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.types import ASGIApp, Message


class InnerClient:
    """Sends requests to `app`; `owner` is what the server's lifespan put under `scope["app"]`."""

    def __init__(self, app: ASGIApp, owner: Any) -> None:
        self._app = app
        self._owner = owner

    async def post(self, path: str, body: bytes) -> tuple[int, bytes]:
        """Send a JSON body and return the answer's status and body; an exception behind is a 500."""
        given: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
        status, chunks = 500, []

        async def receive() -> Message:
            if not given:
                await asyncio.Event().wait()  # a server that hears of a disconnect gives the request up
            return given.pop()

        async def send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            elif message["type"] == "http.response.body":
                chunks.append(message.get("body", b""))

        try:
            await self._app(self._scope(path, len(body)), receive, send)
        except Exception as error:  # noqa: BLE001 - whatever the server behind raises is its answer
            return 500, f"{type(error).__name__}: {error}".encode()
        return status, b"".join(chunks)

    def _scope(self, path: str, size: int) -> dict[str, Any]:
        headers = [
            (b"host", b"localhost"),
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % size),
        ]
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": headers,
            "client": ("127.0.0.1", 0),
            "server": ("127.0.0.1", 0),
            "state": {},
            "app": self._owner,
        }
