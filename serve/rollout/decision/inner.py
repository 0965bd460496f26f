"""Asks an application from inside: golden prompts and the lines of batches have no client."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.types import ASGIApp, Message

Line = tuple[bytes, bytes]


@dataclass(frozen=True, slots=True)
class InnerAnswer:
    """What the application answered; `headers` as they were sent, the last of each name."""

    status: int
    headers: dict[bytes, bytes]
    body: bytes


class InnerClient:
    """Sends requests to `app`; `owner` is what the server's lifespan put under `scope["app"]`.

    `state` is what every scope's state holds; no client can say any of it.
    """

    def __init__(self, app: ASGIApp, owner: Any, state: Mapping[str, object] | None = None) -> None:
        self._app = app
        self._owner = owner
        self._state = state or {}

    async def post(self, path: str, body: bytes) -> tuple[int, bytes]:
        """Send a JSON body and return the answer's status and body; an exception behind is a 500."""
        found = await self.send(path, body)
        return found.status, found.body

    async def send(self, path: str, body: bytes, headers: Iterable[Line] = ()) -> InnerAnswer:
        """Send a JSON body with more `headers` and return the answer; an exception behind is a 500."""
        given: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
        status, chunks = 500, []
        lines: dict[bytes, bytes] = {}

        async def receive() -> Message:
            if not given:
                await asyncio.Event().wait()  # a server that hears of a disconnect gives the request up
            return given.pop()

        async def send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                lines.update(message.get("headers", ()))
            elif message["type"] == "http.response.body":
                chunks.append(message.get("body", b""))

        try:
            await self._app(self._scope(path, len(body), headers), receive, send)
        except Exception as error:  # noqa: BLE001 - whatever the server behind raises is its answer
            return InnerAnswer(500, lines, f"{type(error).__name__}: {error}".encode())
        return InnerAnswer(status, lines, b"".join(chunks))

    def _scope(self, path: str, size: int, more: Iterable[Line]) -> dict[str, Any]:
        headers = [
            (b"host", b"localhost"),
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % size),
            *more,
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
            "state": {**self._state},
            "app": self._owner,
        }
