"""A server that does nothing but answer batches: `python -m tests.fakes.batch_server ROOT HOLDER ASKED`.

It appends the name of each line that it is asked to the file ASKED, and thinks every other server dead.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from starlette.types import Receive, Scope, Send

from registry.entries.openai.batches import BatchStore
from registry.entries.openai.files import FileStore
from serve.batches.asking import LineAsker
from serve.batches.gate import Gate
from serve.batches.run import BatchTools
from serve.batches.runner import BatchRunner
from serve.rollout.decision.inner import InnerClient
from serve.settings import BatchSettings

CHAT = "/v1/chat/completions"


async def in_thread(call: Callable[[], Any], /) -> Any:
    """Run a blocking call in a thread."""
    return await asyncio.to_thread(call)


@dataclass
class Answering:
    """An ASGI application that answers each line with its own name, after `pause_seconds`."""

    pause_seconds: float = 0.0
    asked: list[str] = field(default_factory=list)
    note: Callable[[str], object] = lambda _: None
    statuses: dict[str, list[int]] = field(default_factory=dict)
    """Statuses with which a line is refused first, by its name."""
    deadly: str = ""
    """The line that kills the server."""
    died: bool = False
    running: int = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        name = json.loads((await receive())["body"])["name"]
        self.asked.append(name)
        self.note(name)
        if name == self.deadly:
            self.died = True
        if self.died:
            await asyncio.Event().wait()
        self.running += 1
        try:
            await asyncio.sleep(self.pause_seconds)
        finally:
            self.running -= 1
        statuses = self.statuses.get(name)
        body = json.dumps(
            {"name": name, "usage": {"prompt_tokens": 2, "completion_tokens": 1, "total_tokens": 3}}
        )
        headers = [(b"x-request-id", f"id-{name}".encode())]
        await send(
            {
                "type": "http.response.start",
                "status": statuses.pop(0) if statuses else 200,
                "headers": headers,
            }
        )
        await send({"type": "http.response.body", "body": body.encode()})


def make_runner(root: Path, app: Answering, holder: str = "one", **options: Any) -> BatchRunner:
    """Return a runner whose lines `app` answers; `options` are its tools' and the gate's `rule`."""
    rule = options.pop("rule", BatchSettings(alone=8, quiet_seconds=0.0))
    beats = options.pop("beats", lambda: ())
    on_disk: Callable[[Callable[[], Any]], Awaitable[Any]] = options.pop("on_disk", in_thread)
    others = options.pop("others", int)
    gate = Gate(rule, lambda: others() + gate.inside, look_seconds=0.001)
    clock = options.get("clock")
    store = BatchStore(root) if clock is None else BatchStore(root, clock)
    tools = BatchTools(
        files=FileStore(root),
        asker=LineAsker(InnerClient(app, None), lambda _: None, backoff_seconds=(0.01, 0.01)),
        gate=gate,
        on_disk=on_disk,
        holder=holder,
        max_body_bytes=1024,
        **{"write_seconds": 0.02, **options},
    )
    return BatchRunner(store, tools, beats, lambda: False)


async def serve(root: Path, holder: str, asked: Path) -> None:
    """Answer batches until the process is killed."""
    with asked.open("a", buffering=1) as file:
        app = Answering(0.005, note=lambda name: file.write(f"{name}\n"))
        runner = make_runner(root, app, holder)
        while True:
            await runner.turn()
            await asyncio.sleep(0.02)


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1]), f"{sys.argv[2]} {os.getpid()}", Path(sys.argv[3])))
