"""The deployment that Ray's proxies send requests to: it picks no replica itself, but asks again.

It tells Ray the request's adapter, and Ray asks a replica that holds it (`deploy.ray.residents`); the base's
requests go to any. One that got no byte of an answer is asked again, of whichever replica Ray picks, until
`retry_seconds` are over. An answer that breaks off later cannot be repaired: a stream of events ends with an
error event and without its closing event, so that no client takes it for whole.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from deploy.ray.child import Head, RawRequest, Unavailable
from deploy.ray.options import RayOptions
from deploy.ray.residents import KnownAdapters, adapter_of

if TYPE_CHECKING:
    from starlette.requests import Request as HttpRequest
    from starlette.responses import Response

_FIRST_PAUSE_SECONDS = 0.05
_LONGEST_PAUSE_SECONDS = 1.0
_READY_SECONDS = 3.0


class RetryProxy:
    """Takes requests from Ray's proxy and asks the replicas, one after the other if need be."""

    def __init__(self, options: RayOptions, replicas: Any) -> None:
        self._options = options
        self._replicas = replicas.options(method_name="ask", stream=True)
        self._known = KnownAdapters(options.root)

    async def __call__(self, http: HttpRequest) -> Response:
        """Answer one request."""
        if http.url.path == "/livez":
            return _json(200, {"status": "alive"})
        body = await _read(http, self._options.max_body_bytes)
        if body is None:
            fact = f"the body exceeds {self._options.max_body_bytes} bytes"
            return _error(413, f"{fact}; ask a replica itself, or work on the root", "body_too_large")
        path = (http.scope.get("raw_path") or http.scope["path"].encode()).decode("latin-1")
        query = http.scope["query_string"].decode("latin-1")
        headers = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in http.headers.raw)
        request = RawRequest(http.method, f"{path}?{query}" if query else path, headers, body)
        seconds = _READY_SECONDS if path in {"/readyz", "/health"} else self._options.retry_seconds
        return await self._answer(request, seconds)

    def _holders(self, request: RawRequest) -> Any:
        """Return the replicas as Ray is to choose among them for a request's first try."""
        adapter = adapter_of(request.target, request.body) if self._options.by_adapter else ""
        if adapter not in self._known:
            return self._replicas
        return self._replicas.options(multiplexed_model_id=adapter)

    async def _answer(self, request: RawRequest, seconds: float) -> Response:
        end, pause, reason = time.monotonic() + seconds, _FIRST_PAUSE_SECONDS, "no replica is ready"
        replicas = self._holders(request)
        while (left := end - time.monotonic()) > 0:
            parts = replicas.remote(request)
            replicas = self._replicas  # the holder may be what is gone: the next try is any replica's
            first = await _first(parts, left)
            if isinstance(first, Head):
                return _pass_on(first, parts)
            reason = first.reason
            await asyncio.sleep(min(pause, max(0.0, end - time.monotonic())))
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
        return _error(503, f"no replica answers: {reason}", "engine_unavailable", retry_after=5)


async def _first(parts: Any, seconds: float) -> Head | Unavailable:
    """Return the head, or why there is none; a replica has `seconds` to accept, and then any time."""
    try:
        async with asyncio.timeout(seconds):
            await anext(parts)
        found = await anext(parts)
    except asyncio.CancelledError:
        parts.cancel()
        raise
    except TimeoutError:
        parts.cancel()
        return Unavailable("every replica is gone or busy")
    except Exception as error:  # noqa: BLE001 - the actor died: another one may answer
        return Unavailable(f"{type(error).__name__}: {str(error)[:200]}")
    assert isinstance(found, Head | Unavailable)
    return found


def _pass_on(head: Head, parts: Any) -> Response:
    from starlette.responses import StreamingResponse

    kind = next((value for name, value in head.headers if name.lower() == "content-type"), "")
    response = StreamingResponse(_body(parts, events="event-stream" in kind), status_code=head.status)
    response.raw_headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in head.headers]
    return response


async def _body(parts: Any, *, events: bool) -> AsyncIterator[bytes]:
    ended = False
    try:
        async for part in parts:
            yield part
        ended = True
    except Exception as error:
        if not events:
            raise
        message = f"the replica broke off: {type(error).__name__}"
        yield b"data: " + _encode(message, "engine_lost") + b"\n\n"
    finally:
        if not ended:
            # The client has left, or the replica has: nobody needs the rest.
            with contextlib.suppress(Exception):
                parts.cancel()


async def _read(http: HttpRequest, limit: int) -> bytes | None:
    """Return the body, None when it is longer than `limit`."""
    if int(http.headers.get("content-length") or 0) > limit:
        return None
    chunks, size = [], 0
    async for chunk in http.stream():
        chunks.append(chunk)
        size += len(chunk)
        if size > limit:
            return None
    return b"".join(chunks)


def _json(status: int, value: object) -> Response:
    from starlette.responses import JSONResponse

    return JSONResponse(value, status)


def _encode(message: str, code: str) -> bytes:
    return json.dumps(
        {"error": {"message": message, "type": "server_error", "param": None, "code": code}}
    ).encode()


def _error(status: int, message: str, code: str, *, retry_after: int | None = None) -> Response:
    from starlette.responses import Response as Plain

    headers = {} if retry_after is None else {"retry-after": str(retry_after)}
    return Plain(_encode(message, code), status, headers, "application/json")
