"""Accepts connections on a socket of somebody else's, and outlives a want of descriptors.

NOTE: asyncio's own server tries again once per place in the backlog when `accept` finds no descriptor
free, logs a traceback each time, and comes back for each of them a second later. Remove when Python 3.14
is the oldest and does not. uvloop, under the engine's process, waits as it should.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable

RETRY_SECONDS = 0.5
"""How long it waits where the machine has nothing left for another connection."""

_AT_ONCE = 64  # connections before other work of the loop gets its turn


class Acceptor:
    """Makes a protocol of `factory` for each connection to `listener`, from now until `close`."""

    def __init__(
        self,
        listener: socket.socket,
        factory: Callable[[], asyncio.Protocol],
        *,
        retry_seconds: float = RETRY_SECONDS,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._socket = listener.dup()  # its closing must not close the caller's
        self._socket.settimeout(0)
        self._factory = factory
        self._retry_seconds = retry_seconds
        self._retry: asyncio.TimerHandle | None = None
        self._connecting: set[asyncio.Task[object]] = set()
        self._loop.add_reader(self._socket, self._accept)

    def close(self) -> None:
        """Accept nothing more; what was accepted goes on."""
        self._loop.remove_reader(self._socket)
        if self._retry is not None:
            self._retry.cancel()
        self._socket.close()

    def _accept(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                connection, _ = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError:
                # No descriptor or no memory: whoever waits in the backlog goes on waiting there.
                self._loop.remove_reader(self._socket)
                self._retry = self._loop.call_later(self._retry_seconds, self._go_on)
                return
            connection.settimeout(0)
            task: asyncio.Task[object] = self._loop.create_task(self._connect(connection))
            self._connecting.add(task)
            task.add_done_callback(self._connecting.discard)

    def _go_on(self) -> None:
        self._retry = None
        self._loop.add_reader(self._socket, self._accept)

    async def _connect(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):  # it is gone already
            await self._loop.connect_accepted_socket(self._factory, connection)
