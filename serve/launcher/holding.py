"""What clients hear while the engine is not there: 503 and when to come back, never a refused connection.

A tiny HTTP/1.1 server on the same listening socket as the engine's process. It reads one request per
connection, answers, and closes; it never looks at bodies. Invariant: while it holds, whoever connects
gets an answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from dataclasses import dataclass

from serve.launcher.listener import BACKLOG

_HEAD_LIMIT = 64 * 1024
_HEAD_SECONDS = 10.0
_LINGER_SECONDS = 2.0
_RETRY_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Situation:
    """Why the engine does not answer, in words for a client; `reason` is for who asks /readyz."""

    state: str  # starting | restarting | draining
    message: str
    retry_after_seconds: int
    reason: str = ""


class Holding:
    """Answers on `listener` between `start` and `stop`; the socket itself belongs to the caller."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._server: asyncio.Server | None = None
        self._retrying: asyncio.Task[None] | None = None
        self._situation = Situation("starting", "the engine is starting", 5)

    def explain(self, situation: Situation) -> None:
        """Set what clients are told from now on."""
        self._situation = situation

    @property
    def active(self) -> bool:
        """Return whether it accepts connections now."""
        return self._server is not None

    async def start(self) -> None:
        """Accept from now on; nothing happens when it does already.

        Where no descriptor is left it is tried again until it succeeds; clients wait in the kernel's queue.
        """
        if self._retrying is None and not await self._open():
            self._retrying = asyncio.create_task(self._keep_opening(), name="hold")

    async def _keep_opening(self) -> None:
        while not await self._open():  # noqa: ASYNC110 - nothing tells of a descriptor that is free again
            await asyncio.sleep(_RETRY_SECONDS)
        self._retrying = None

    async def _open(self) -> bool:
        if self._server is None:
            try:
                # A server closes its socket when it stops, so each one gets a descriptor of its own.
                self._server = await asyncio.start_server(
                    self._answer, sock=self._listener.dup(), limit=_HEAD_LIMIT, backlog=BACKLOG
                )
            except OSError:
                return False
        return True

    def stop(self) -> None:
        """Leave new connections to somebody else; those accepted already still get their answer."""
        if self._retrying is not None:
            self._retrying.cancel()
            self._retrying = None
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(
            OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError
        ):
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), _HEAD_SECONDS)
            writer.write(response(head, self._situation))
            await writer.drain()
            await _linger(reader, writer)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def _linger(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Read what the client still sends: closing over unread bytes resets the connection, answer and all."""
    writer.write_eof()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_LINGER_SECONDS):
            while await reader.read(_HEAD_LIMIT):
                pass


def response(head: bytes, situation: Situation) -> bytes:
    """Return the whole HTTP answer to a request with this `head`."""
    method, _, rest = head.partition(b" ")
    path = rest.partition(b" ")[0].partition(b"?")[0]
    status = "200 OK" if path == b"/livez" else "503 Service Unavailable"
    content = json.dumps(_body(path, situation)).encode()
    headers = [
        f"HTTP/1.1 {status}",
        "content-type: application/json",
        f"content-length: {len(content)}",
        "connection: close",
    ]
    if not status.startswith("200"):
        headers.append(f"retry-after: {situation.retry_after_seconds}")
    return "\r\n".join(headers).encode() + b"\r\n\r\n" + (b"" if method == b"HEAD" else content)


def _body(path: bytes, situation: Situation) -> dict[str, object]:
    if path == b"/livez":
        return {"status": "alive", "state": situation.state}
    if path == b"/readyz":
        reason = {"reason": situation.reason} if situation.reason else {}
        return {"status": "not ready", "state": situation.state, **reason}
    message = f"{situation.message}; retry in {situation.retry_after_seconds} s"
    error = {"message": message, "type": "server_error", "param": None, "code": f"engine_{situation.state}"}
    return {"error": error}
