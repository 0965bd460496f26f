"""A mock of an API server, bare and behind the router, in one process on one loop.

Two processes would differ by more than the router; here both arms share everything, and only the port that a
request came in by says which one answers it. The mock also answers by our protocol and by h11, and there is
a second router, on a root with keys. Prints the ports, the keys and the process id as one line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any, Literal

import uvicorn
from prometheus_client import CollectorRegistry
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from registry.entries.groups import GroupStore
from registry.entries.keys import KeyStore
from registry.entries.rights import NO_LIMITS, Group, GroupLimits
from registry.entries.rights import Scope as KeyScope
from registry.records import RolloutEntry
from registry.store import Registry
from serve.connections.protocol import limited
from serve.rollout.policy import Policy, RampStep
from serve.router.app import Router
from serve.settings import ServeSettings
from tests.fakes.adapters import make_adapter
from tests.fakes.base import make_base
from tests.fakes.engine import FakeEngine
from tests.fakes.rollouts import make_entry

CHUNKS = 64
BASE, ADAPTER, ROLLING = "tiny", "support", "rolling"
ALL_LIMITS = GroupLimits(
    requests_per_minute=10**9,
    input_tokens_per_minute=10**12,
    output_tokens_per_minute=10**12,
    concurrency=10**6,
    tokens_per_day=10**14,
)
"""Every limit that has to be counted, and none that is reached."""

POLICY = Policy(name="bench", steps=(RampStep(weight=2_500, min_units=10**9, min_seconds=86_400),))
"""One step that nothing ends while a benchmark runs; all metrics are on, so texts are kept."""


def _padded(text: bytes, size: int, end: bytes) -> bytes:
    """Fill up with words: a long run of one letter takes some peers' tokenizers many times as long."""
    missing = size - len(text) - len(end)
    return text + (b"some plain words " * size)[:missing] + end


_USAGE = b'"usage":{"prompt_tokens":250,"total_tokens":266,"completion_tokens":16}}'
ANSWER = _padded(
    b'{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"tiny","choices":'
    b'[{"index":0,"finish_reason":"stop","message":{"role":"assistant","content":"',
    300,
    b'"}}],' + _USAGE,
)
CHUNK = _padded(
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"tiny",'
    b'"choices":[{"index":0,"delta":{"content":"',
    150,
    b'"}}]}\n\n',
)
LAST = b"data: [DONE]\n\n"

_JSON: Message = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"application/json"), (b"content-length", str(len(ANSWER)).encode())],
}
_STREAM: Message = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"text/event-stream; charset=utf-8")],
}


async def mock(scope: Scope, receive: Receive, send: Send) -> None:
    """Read a request and answer it: 300 bytes of JSON, or 64 chunks of 150 bytes without a pause."""
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    body = b""
    more = True
    while more:
        message = await receive()
        body += message["body"]
        more = message["more_body"]
    if b'"stream":true' not in body:
        await send(_JSON)
        await send({"type": "http.response.body", "body": ANSWER, "more_body": False})
        return
    await send(_STREAM)
    for _ in range(CHUNKS):
        await send({"type": "http.response.body", "body": CHUNK, "more_body": True})
    await send({"type": "http.response.body", "body": LAST, "more_body": False})


def make_router(folder: Path) -> Router:
    """Return a router around the mock, on a root with two adapters, one with a rollout open at 25 %."""
    registry = Registry.init(folder / "root", make_base(folder / "base"), name=BASE)
    registry.publish(ADAPTER, make_adapter(folder / ADAPTER), who="bench")
    for seed in (1, 2):
        registry.publish(ROLLING, make_adapter(folder / f"{ROLLING}-{seed}", seed=seed), who="bench")
    registry.append_rollout(ROLLING, _open)
    settings = ServeSettings(root=registry.root, replica="bench")
    engine = FakeEngine(base_name=BASE)
    return Router(mock, settings=settings, engine_factory=lambda _: engine, collectors=CollectorRegistry())


def make_keyed(folder: Path) -> tuple[Router, dict[str, str]]:
    """Return a router on a root with two groups, and a key of each: `free`, and `limited` in every way."""
    registry = Registry.init(folder / "keyed", make_base(folder / "base"), name=BASE)
    registry.publish(ADAPTER, make_adapter(folder / ADAPTER), who="bench")
    keys = {}
    for name, limits in (("free", NO_LIMITS), ("limited", ALL_LIMITS)):
        GroupStore(registry.root).create(Group(name, limits=limits), who="bench")
        _, keys[name] = KeyStore(registry.root).create([KeyScope.INFER], who="bench", group=name)
    settings = ServeSettings(root=registry.root, replica="keyed")
    engine = FakeEngine(base_name=BASE)
    router = Router(mock, settings=settings, engine_factory=lambda _: engine, collectors=CollectorRegistry())
    return router, keys


def _open(last: RolloutEntry | None) -> RolloutEntry:
    assert last is None, "a fresh root"
    return make_entry(POLICY, adapter=ROLLING, seq=1, weight=2_500)


def main() -> None:
    """Serve until the process is ended."""
    logging.disable(logging.INFO)
    sockets = [socket.create_server(("127.0.0.1", 0), backlog=512) for _ in range(5)]
    bare, routed, ours, h11, keyed = (one.getsockname()[1] for one in sockets)
    with tempfile.TemporaryDirectory() as folder:
        guarded, keys = make_keyed(Path(folder))
        # The bare arm is uvicorn's own protocol, the other one the protocol that the router is served by.
        servers = [
            _server(mock, "httptools", "off"),
            _server(make_router(Path(folder)), limited(ServeSettings().connections), "on"),
            _server(mock, limited(ServeSettings().connections), "off"),
            _server(mock, "h11", "off"),
            _server(guarded, limited(ServeSettings().connections), "on"),
        ]
        ports = {"bare": bare, "routed": routed, "ours": ours, "h11": h11, "keyed": keyed, "pid": os.getpid()}
        sys.stdout.write(json.dumps({**ports, **keys}) + "\n")
        sys.stdout.flush()
        _run(servers, sockets)


def _server(app: ASGIApp, http: Any, lifespan: Literal["on", "off"]) -> uvicorn.Server:
    return uvicorn.Server(
        uvicorn.Config(app, loop="uvloop", http=http, access_log=False, lifespan=lifespan, log_level="error")
    )


def _run(servers: list[uvicorn.Server], sockets: list[socket.socket]) -> None:
    import uvloop

    async def both() -> None:
        await asyncio.gather(
            *(server.serve(sockets=[one]) for server, one in zip(servers, sockets, strict=True))
        )

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(both())


if __name__ == "__main__":
    main()
