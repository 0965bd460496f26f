"""An application behind the router: it speaks OpenAI's streams in a few lines, and misbehaves on demand.

The body's field `play` chooses what happens, or `plays` by the model that answers; everything that arrives
is kept in `seen`. `refusal` answers with the body's own `status` and `refusal`, `events` with its `events`.
`before` is called at the beginning of each answer; `expose` answers /metrics.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from starlette.types import Message, Receive, Scope, Send

from tests.fakes.protocols import USAGE, chat, messages


@dataclass(frozen=True, slots=True)
class Seen:
    """One request as it arrived behind the router."""

    method: str
    path: str
    headers: dict[str, str]
    body: dict[str, Any]


@dataclass(slots=True)
class InnerApp:
    """An ASGI application; streams that `play` slowly wait after each word until `open` is set."""

    seen: list[Seen] = field(default_factory=list)
    left: int = 0
    running: int = 0
    open: bool = False
    fail_startup: bool = False
    lifespan: list[str] = field(default_factory=list)
    plays: dict[str, str] = field(default_factory=dict)
    before: Callable[[], None] = lambda: None
    expose: Callable[[], bytes] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or live through the lifespan."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        if scope["path"] == "/metrics" and self.expose is not None:
            await send(_start(200, b"text/plain; version=0.0.4; charset=utf-8"))
            await send(_body(self.expose(), more=False))
            return
        body = await _read(receive)
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        seen = Seen(scope["method"], scope["path"], headers, json.loads(body) if body else {})
        self.seen.append(seen)
        self.running += 1
        try:
            await self._play(seen, receive, send)
        finally:
            self.running -= 1

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        self.lifespan.append("startup")
        if self.fail_startup:
            await send({"type": "lifespan.startup.failed", "message": "no model"})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        self.lifespan.append("shutdown")
        await send({"type": "lifespan.shutdown.complete"})

    async def _play(self, seen: Seen, receive: Receive, send: Send) -> None:
        play = seen.body.get("play", "stream" if seen.body.get("stream") else "answer")
        play = self.plays.get(seen.body.get("model", ""), play)
        self.before()
        if play == "leave_500":
            await self._wait_for_leaving(receive)
            play = "500"
        if play == "raise":
            raise RuntimeError("the inner application broke")
        if play == "hang":
            await self._wait_for_leaving(receive)
        elif play.isdigit():
            await _send_json(send, int(play), {"error": {"message": "as told"}})
        elif play == "refusal":
            await _send_json(send, seen.body["status"], seen.body["refusal"])
        elif play == "events":
            await send(_start(200, b"text/event-stream; charset=utf-8"))
            for event in seen.body["events"]:
                await send(_body(event.encode()))
            await send(_body(b"", more=False))
        elif seen.path == "/v1/responses" and play in {"answer", "stream"}:
            await _respond(send, _response(seen), streamed=play == "stream")
        elif play == "answer":
            await _send_json(send, 200, _answer(seen))
        else:
            await self._stream(play, seen, receive, send)

    async def _wait_for_leaving(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self.left += 1

    async def _stream(self, play: str, seen: Seen, receive: Receive, send: Send) -> None:
        """Stream; as Starlette does, watch for the client's leaving at the same time."""
        watch = asyncio.create_task(self._wait_for_leaving(receive))
        work = asyncio.create_task(self._send_events(play, seen, send))
        _, pending = await asyncio.wait({watch, work}, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        if work.done() and not work.cancelled():
            work.result()

    async def _send_events(self, play: str, seen: Seen, send: Send) -> None:
        await send(_start(200, b"text/event-stream; charset=utf-8"))
        if play == "nothing":
            return
        if play == "error_first":
            await send(_event({"error": {"message": "no", "code": 500}}))
            await send(_body(b"data: [DONE]\n\n"))
            await send(_body(b"", more=False))
            return
        await send(_event(_delta(seen, {"role": "assistant", "content": ""})))
        for word in ("one", " two", " three"):
            await send(_event(_delta(seen, {"content": word})))
            while play == "slow" and not self.open:  # noqa: ASYNC110 - a test's thread opens it
                await asyncio.sleep(0.002)
        if play == "error":
            await send(_event({"error": {"message": "EngineCore died", "code": 500}}))
        if play == "cut":
            return
        if play == "raise_late":
            raise RuntimeError("the inner application broke")
        if play != "unclosed":
            await send(_event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}))
            await send(_event({"choices": [], "usage": USAGE}))
            await send(_body(b"data: [DONE]\n\n"))
        await send(_body(b"", more=False))


async def _read(receive: Receive) -> bytes:
    chunks: list[bytes] = []
    more = True
    while more:
        message = await receive()
        chunks.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(chunks)


def _answer(seen: Seen) -> dict[str, Any]:
    identity = seen.body.get("request_id") or f"chatcmpl-{seen.headers.get('x-request-id')}"
    shape = messages if seen.path == "/v1/messages" else chat
    return {**shape(seen.body, identity), "path": seen.path}


def _response(seen: Seen) -> dict[str, Any]:
    """Return a response that repeats how many items it was asked with."""
    given = seen.body.get("input")
    text = f"seen {len(given)}" if isinstance(given, list) else "seen text"
    part = {"type": "output_text", "text": text, "annotations": []}
    identity = f"msg_{seen.body['request_id'][-6:]}"
    item = {"type": "message", "id": identity, "role": "assistant", "status": "completed", "content": [part]}
    head = {"id": seen.body["request_id"], "object": "response", "status": "completed", "path": seen.path}
    return {**head, "model": seen.body["model"], "output": [item], "usage": USAGE}


async def _respond(send: Send, response: dict[str, Any], *, streamed: bool) -> None:
    if not streamed:
        await _send_json(send, 200, response)
        return
    await send(_start(200, b"text/event-stream; charset=utf-8"))
    for number, kind in enumerate(("response.created", "response.completed")):
        data = json.dumps({"type": kind, "sequence_number": number, "response": response})
        await send(_body(f"event: {kind}\ndata: {data}\n\n".encode()))
    await send(_body(b"", more=False))


def _delta(seen: Seen, delta: dict[str, str]) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{seen.headers['x-request-id']}",
        "model": seen.body["model"],
        "choices": [{"delta": delta}],
    }


def _event(value: object) -> Message:
    return _body(b"data: " + json.dumps(value, separators=(",", ":")).encode() + b"\n\n")


def _body(body: bytes, *, more: bool = True) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": more}


def _start(status: int, kind: bytes, *more: tuple[bytes, bytes]) -> Message:
    return {"type": "http.response.start", "status": status, "headers": [(b"content-type", kind), *more]}


async def _send_json(send: Send, status: int, value: object) -> None:
    body = json.dumps(value, separators=(",", ":")).encode()
    await send(_start(status, b"application/json", (b"content-length", str(len(body)).encode())))
    await send(_body(body, more=False))
