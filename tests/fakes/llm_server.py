"""A small LLM server on a real socket: streams tokens at a pace, and misbehaves by the model's name.

The name's part before `-` says how: `fast` at once, `slow` 20 ms before the first token and 5 ms between
tokens, `role` sends a delta without text first and waits, `pairs` two tokens per chunk, `fake` sends all
chunks at the end, `cut` ends without [DONE], `event` sends an error inside the stream, `busy` answers
503, `hang` never answers, `mixed` alternates fast and busy. From the `stall_from`-th request on, nobody
is answered for `stall_seconds`. `arms` names a model's arm, `answered_by` its version.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from starlette.types import Message, Receive, Scope, Send

from tests.fakes.http_server import served


@dataclass
class LLMServer:
    """An ASGI application; `seen` are all bodies with their session in `session`."""

    models: tuple[str, ...] = ()
    stall_from: int | None = None
    stall_seconds: float = 0.0
    arms: dict[str, str] = field(default_factory=dict)
    answered_by: dict[str, str] = field(default_factory=dict)
    seen: list[dict[str, Any]] = field(default_factory=list)
    left: int = 0
    _gate: asyncio.Event | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = b""
        while (message := await receive())["type"] == "http.request":
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        if scope["path"] == "/v1/models":
            await _json(send, 200, {"data": [{"id": name} for name in self.models]})
            return
        request = json.loads(body)
        headers = dict(scope["headers"])
        self.seen.append({**request, "session": headers.get(b"x-session-id", b"").decode()})
        await self._wait_for_the_stall()
        work = asyncio.create_task(self._answer(request, len(self.seen), send))
        watch = asyncio.create_task(_left(receive))
        await asyncio.wait({work, watch}, return_when=asyncio.FIRST_COMPLETED)
        self.left += not work.done()
        for task in (work, watch):
            task.cancel()
        found = await asyncio.gather(work, watch, return_exceptions=True)
        if isinstance(found[0], Drop):
            raise found[0]

    async def _wait_for_the_stall(self) -> None:
        """From the `stall_from`-th request on, everybody waits until the stall is over."""
        if self.stall_from is not None and len(self.seen) >= self.stall_from and self._gate is None:
            self._gate = asyncio.Event()
            asyncio.get_running_loop().call_later(self.stall_seconds, self._gate.set)
        if self._gate is not None:
            await self._gate.wait()

    async def _answer(self, request: dict[str, Any], number: int, send: Send) -> None:
        kind = request["model"].partition("@")[0].partition("-")[0]
        if kind == "hang":
            await asyncio.Event().wait()
        if kind == "busy" or (kind == "mixed" and number % 2):
            await _json(send, 503, {"error": {"message": "the engine is busy", "code": 503}})
        elif request.get("stream"):
            await self._stream(kind, request, send)
        else:
            choice = {"message": {"role": "assistant", "content": "word " * request["max_tokens"]}}
            answer = {"id": "chatcmpl-1", "choices": [choice], "usage": _usage(request)}
            await _json(send, 200, answer, self._headers(request["model"]))

    async def _stream(self, kind: str, request: dict[str, Any], send: Send) -> None:
        headers = [(b"content-type", b"text/event-stream"), *self._headers(request["model"])]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        if kind in {"slow", "cut"}:
            await asyncio.sleep(0.02)
        if "messages" in request:
            await send(_event({"delta": {"role": "assistant", "content": ""}}))
        if kind == "role":
            await asyncio.sleep(0.15)
        await self._words(kind, request, send)
        if kind == "event":
            await send(_data({"error": {"message": "EngineCore died"}}))
        if kind == "cut":
            raise Drop
        if kind != "event":
            await send(_data({"choices": [], "usage": _usage(request)}))
            await send(_body(b"data: [DONE]\n\n"))
        await send(_body(b"", more=False))

    async def _words(self, kind: str, request: dict[str, Any], send: Send) -> None:
        each = 2 if kind == "pairs" else 1
        text = "word " * each
        choice = {"delta": {"content": text}} if "messages" in request else {"text": text}
        if kind == "fake":
            await asyncio.sleep(0.2)
        for _ in range(request["max_tokens"] // each):
            if kind in {"slow", "role", "pairs"}:
                await asyncio.sleep(0.005 * each)
            await send(_event(choice))

    def _headers(self, model: str) -> list[tuple[bytes, bytes]]:
        answered = self.answered_by.get(model, model if "@" in model else f"{model}@1")
        arm = self.arms.get(model, "stable")
        return [(b"x-wardrobe-adapter", answered.encode()), (b"x-wardrobe-arm", arm.encode())]


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class Drop(Exception):
    """Makes uvicorn close the connection."""


@contextmanager
def llm_server(*models: str, **settings: Any) -> Iterator[tuple[str, LLMServer]]:
    """Serve `models` and give the URL and the server."""
    server = LLMServer(models=models, **settings)
    with served(server) as url:
        yield url, server


def _usage(request: dict[str, Any]) -> dict[str, int]:
    texts = [one["content"] for one in request.get("messages", ())] or [request.get("prompt", "")]
    return {"prompt_tokens": len(" ".join(texts).split()), "completion_tokens": request["max_tokens"]}


def _event(choice: dict[str, Any]) -> Message:
    return _data({"id": "chatcmpl-1", "choices": [choice]})


def _data(value: object) -> Message:
    return _body(b"data: " + json.dumps(value).encode() + b"\n\n")


def _body(body: bytes, *, more: bool = True) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": more}


async def _json(
    send: Send, status: int, value: object, headers: list[tuple[bytes, bytes]] | None = None
) -> None:
    body = json.dumps(value).encode()
    kept = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*kept, *(headers or [])]})
    await send(_body(body, more=False))
