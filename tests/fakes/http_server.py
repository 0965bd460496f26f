"""A real uvicorn on a free port of this machine, in a thread of the test's process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

MOMENT_SECONDS = 0.005


class Server(uvicorn.Server):
    """Tells when it listens, leaves the signals of the test's process alone, and ends at once.

    uvicorn itself looks every tenth of a second whether it shall end, and then sleeps another one: a
    session starts hundreds of servers.
    """

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = threading.Event()

    @property
    def url(self) -> str:
        """Return its address."""
        return f"http://127.0.0.1:{self.servers[0].sockets[0].getsockname()[1]}"

    async def startup(self, sockets: Any = None) -> None:
        """Start, and say so."""
        await super().startup(sockets)
        self.listening.set()

    async def main_loop(self) -> None:
        """Wait until it shall end."""
        tick = 0
        while not await self.on_tick(tick):
            await asyncio.sleep(MOMENT_SECONDS)
            tick += 1

    async def shutdown(self, sockets: Any = None) -> None:
        """Take no more, let what is being answered finish within the time for it, and end."""
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        try:
            async with asyncio.timeout(self.config.timeout_graceful_shutdown):
                while self.server_state.connections or self.server_state.tasks:  # noqa: ASYNC110 - uvicorn's
                    await asyncio.sleep(MOMENT_SECONDS)
        except TimeoutError:
            for task in self.server_state.tasks:
                task.cancel()
        await self.lifespan.shutdown()


@contextmanager
def running(server: Server) -> Iterator[Server]:
    """Run a server in a thread; it listens when the block begins, and has ended when the block has."""

    def run() -> None:
        try:
            server.run()
        finally:
            server.listening.set()  # nobody waits for a start that failed

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        assert server.listening.wait(20), "the server does not get ready"
        assert server.started, "the server did not start"
        yield server
    finally:
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive(), "the server did not end"


@contextmanager
def served(app: Any, *, http: Any = "auto") -> Iterator[str]:
    """Serve an ASGI app by the protocol `http` and give its URL; the server has ended when the block has."""
    config = uvicorn.Config(
        app, port=0, http=http, log_level="critical", lifespan="off", timeout_graceful_shutdown=2
    )
    with running(Server(config)) as server:
        yield server.url
