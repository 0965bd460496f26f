"""A replica without a model, started as the real one is: `python -m tests.fakes.replica --root R serve …`.

It has the real router over the real root, with a fake engine and a fake application. A body with
`"play": "paced"` streams `words` words, one every `pause` seconds. It prints `wardrobe serve`'s first
lines; SIGTERM lets what is in flight finish.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import sys
from pathlib import Path
from typing import Any

import uvicorn
from prometheus_client import CollectorRegistry, generate_latest
from starlette.types import Message, Receive, Scope, Send

from registry.store import Registry
from serve.launcher.listener import listen
from serve.router.app import Router
from serve.settings import ServeSettings
from tests.fakes.engine import FakeEngine
from tests.fakes.inner import InnerApp, Seen, _body, _delta, _event, _start


class PacedApp(InnerApp):
    """An application that also streams in its own time, has metrics, and says in `x-replica` whose it is."""

    replica: str = ""
    collectors: CollectorRegistry | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or live through the lifespan."""

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"].append((b"x-replica", self.replica.encode()))
            await send(message)

        if scope["type"] == "http" and scope["path"] == "/metrics" and self.collectors is not None:
            await send(_start(200, b"text/plain"))
            await send(_body(generate_latest(self.collectors), more=False))
            return
        await super().__call__(scope, receive, named)

    async def _send_events(self, play: str, seen: Seen, send: Send) -> None:
        if play != "paced":
            await super()._send_events(play, seen, send)
            return
        await send(_start(200, b"text/event-stream; charset=utf-8"))
        for number in range(int(seen.body["words"])):
            await send(_event(_delta(seen, {"content": f"word-{number} "})))
            await asyncio.sleep(float(seen.body["pause"]))
        await send(_body(b"data: [DONE]\n\n"))
        await send(_body(b"", more=False))


def serve(listener: socket.socket, settings: ServeSettings, capacity: int, load_seconds: float) -> None:
    """Serve on `listener` until told to stop."""
    engine = FakeEngine(base_name=Registry.open(settings.root).base.name, capacity=capacity, slots=capacity)
    engine.load_seconds = load_seconds
    application, collectors = PacedApp(), CollectorRegistry()
    application.replica, application.collectors = settings.replica, collectors
    router: Any = Router(
        application, settings=settings, engine_factory=lambda _: engine, collectors=collectors
    )
    config = uvicorn.Config(router, log_level="critical", lifespan="on", timeout_graceful_shutdown=20)
    uvicorn.Server(config).run(sockets=[listener])


def main() -> int:
    """Parse what `wardrobe serve` takes, and serve."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("verb", choices=["serve"])
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--replica", default="")
    given, own_engine = sys.argv[1:], argparse.ArgumentParser()
    own_engine.add_argument("--capacity", type=int, default=4)
    own_engine.add_argument("--load-seconds", type=float, default=0.0)
    place = given.index("--") if "--" in given else len(given)  # what follows would be vLLM's
    own, engine = parser.parse_args(given[:place]), own_engine.parse_known_args(given[place + 1 :])[0]
    with listen(own.host, own.port) as listener:
        port = listener.getsockname()[1]
        settings = ServeSettings(root=own.root, host=own.host, port=port, replica=own.replica)
        sys.stdout.write(f"listening on http://{own.host}:{port}\n")
        sys.stdout.flush()
        serve(listener, settings, engine.capacity, engine.load_seconds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
