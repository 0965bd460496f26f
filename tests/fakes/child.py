"""An engine's process without an engine: a small real uvicorn server that behaves as vLLM's does.

`python -m tests.fakes.child --fd N --line M [--mode MODE]`: it starts in a fraction of a second, has a
helper process in its group, and answers `/stream?chunks=N&seconds=S` chunk by chunk.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import subprocess
import sys
import time
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs

import uvicorn

from serve.engine.handover import Handover, Message, Receive, Send, give_up, open_line
from serve.settings import HANGS_VARIABLE, OUTPUT_VARIABLE, RESTARTS_VARIABLE

HELPER = "import time; time.sleep(600)"


class App:
    """Answers /readyz, /crash, /hang, /block, /shout, /restarts, /hangs, /log, /stream and all else."""

    def __init__(self, started: float) -> None:
        self.state = SimpleNamespace(server=None, engine_client=SimpleNamespace(errored=False))
        self.ready_at = started + float(os.environ.get("FAKE_READY_SECONDS", "0"))

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one connection."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["path"] == "/crash":
            os._exit(7)
        elif scope["path"] == "/hang":
            give_up("its engine was told to")
            await _answer(send, 200, b"it hangs")
        elif scope["path"] == "/block":
            time.sleep(600)  # noqa: ASYNC251 - the loop turns no more
        elif scope["path"] == "/shout":
            for _ in range(64):
                sys.stdout.write("x" * 65_535 + "\n")
            await _answer(send, 200, b"said")
        elif scope["path"] == "/restarts":
            await _answer(send, 200, os.environ[RESTARTS_VARIABLE].encode())
        elif scope["path"] == "/hangs":
            await _answer(send, 200, os.environ[HANGS_VARIABLE].encode())
        elif scope["path"] == "/log":
            os.write(int(os.environ[OUTPUT_VARIABLE]), b"a line of the engine's\n")
            await _answer(send, 200, b"said")
        elif scope["path"] == "/stream":
            await self._stream(parse_qs(scope["query_string"].decode()), send)
        elif scope["path"] == "/readyz" and time.monotonic() < self.ready_at:
            await _answer(send, 503, b"not yet")
        else:
            await _answer(send, 200, str(os.getpid()).encode())

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})

    async def _stream(self, query: dict[str, list[str]], send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(int(query["chunks"][0])):
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
            await asyncio.sleep(float(query["seconds"][0]))
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _answer(send: Send, status: int, body: bytes) -> None:
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body", "body": body})


def with_app(app: App) -> Any:
    """Wrap `app` as vLLM's application is: the scope names it, the handover is outermost."""
    handover = Handover(app)

    async def outer(scope: Message, receive: Receive, send: Send) -> None:
        scope["app"] = app
        await handover(scope, receive, send)

    return outer


def main() -> int:
    """Serve on the inherited socket, or fail as `--mode` says."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--line", type=int, required=True)
    parser.add_argument("--mode", default="serve")
    own = parser.parse_args()
    line = open_line(own.line)
    subprocess.Popen([sys.executable, "-c", HELPER])
    if own.mode == "crash":
        sys.stderr.write("INFO something\nRuntimeError: out of luck\n- leaked instance\n")
        return 3
    if own.mode == "misconfigured":
        line.say("failed vllm option frobnicate: is unknown")
        return 2
    if own.mode == "hang":
        time.sleep(600)
    app = App(time.monotonic())
    server = uvicorn.Server(uvicorn.Config(with_app(app), log_level="warning"))
    app.state.server = server
    asyncio.run(server.serve(sockets=[socket.socket(fileno=own.fd)]))
    if line.hung:
        time.sleep(600)  # as vLLM waits for an engine that hangs
    return 0


if __name__ == "__main__":
    sys.exit(main())
