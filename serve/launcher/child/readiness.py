"""Asks the server behind our own socket whether it is ready, over plain HTTP and nothing else."""

from __future__ import annotations

import asyncio
import contextlib
import socket

INTERVAL_SECONDS = 0.2
_ANSWER_SECONDS = 5.0


async def wait_ready(listener: socket.socket) -> None:
    """Return once `GET /readyz` answers 200; errors and other answers are asked again, for ever."""
    ready = await is_ready(listener)
    while not ready:
        await asyncio.sleep(INTERVAL_SECONDS)
        ready = await is_ready(listener)


async def is_ready(listener: socket.socket) -> bool:
    """Return whether one `GET /readyz` on the socket's own address answered 200."""
    host, port = _reachable(listener)
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(_ANSWER_SECONDS):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
                return (await reader.readline()).split(b" ")[1:2] == [b"200"]
            finally:
                writer.close()
    return False


def _reachable(listener: socket.socket) -> tuple[str, int]:
    """Return an address that reaches `listener`: the wildcard addresses are not one everywhere."""
    host, port = listener.getsockname()[:2]
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port  # noqa: S104 - compared, not bound
