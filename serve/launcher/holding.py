"""What clients hear while the engine is not there: 503 and when to come back, never a refused connection.

A tiny HTTP/1.1 server on the same listening socket as the engine's process. It reads one request per
connection, answers, and closes; it never looks at bodies. Connections have the limits that they have at
the engine's process (`serve.connections`). Invariant: while it holds, whoever connects gets an answer.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from registry.errors import WardrobeError
from serve.connections.acceptor import RETRY_SECONDS, Acceptor
from serve.connections.census import Census, Wait
from serve.connections.refusals import final_answer, render
from serve.door.pages import Line, Pages
from serve.errors import HeadTooLarge, TooManyConnections, TooSlow, anthropic_type
from serve.request_id import ANTHROPIC_PATHS, HEADER, id_headers
from serve.settings import ConnectionLimits

_END_OF_HEAD = b"\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Outage:
    """Why the engine does not answer, in words for a client; `reason` is for who asks /readyz."""

    state: str  # starting | restarting | draining
    message: str
    retry_after_seconds: int
    reason: str = ""


class Holding:
    """Answers on `listener` between `start` and `stop`; the socket itself belongs to the caller."""

    def __init__(
        self, listener: socket.socket, limits: ConnectionLimits | None = None, pages: Pages | None = None
    ) -> None:
        self.census = Census(limits or ConnectionLimits())
        self._pages = pages
        self._listener = listener
        self._acceptor: Acceptor | None = None
        self._retrying: asyncio.Task[None] | None = None
        self._situation = Outage("starting", "the engine is starting", 5)

    def explain(self, situation: Outage) -> None:
        """Set what clients are told from now on."""
        self._situation = situation

    @property
    def active(self) -> bool:
        """Return whether it accepts connections now."""
        return self._acceptor is not None

    async def start(self) -> None:
        """Accept from now on; nothing happens when it does already.

        Where no descriptor is left it is tried again until it succeeds; clients wait in the kernel's queue.
        """
        if self._retrying is None and not self._open():
            self._retrying = asyncio.create_task(self._keep_opening(), name="hold")

    async def _keep_opening(self) -> None:
        while not self._open():  # noqa: ASYNC110 - nothing tells of a descriptor that is free again
            await asyncio.sleep(RETRY_SECONDS)
        self._retrying = None

    def _open(self) -> bool:
        if self._acceptor is None:
            try:
                self._acceptor = Acceptor(self._listener, lambda: _Caller(self.census, self._answer))
            except OSError:
                return False
        return True

    def stop(self) -> None:
        """Leave new connections to somebody else; those accepted already still get their answer."""
        if self._retrying is not None:
            self._retrying.cancel()
            self._retrying = None
        if self._acceptor is not None:
            self._acceptor.close()
            self._acceptor = None

    def _answer(self, head: bytes) -> bytes:
        return response(head, self._situation, self._pages)


class _Caller(asyncio.Protocol):
    """One connection: a head, an answer, and the end."""

    def __init__(self, census: Census, answer: Callable[[bytes], bytes]) -> None:
        self._census = census
        self._answer = answer
        self._head = bytearray()
        self._answered = False
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport), "a server of streams makes no other"
        self._transport = transport
        peer = transport.get_extra_info("peername")
        try:
            self._census.enter(self, str(peer[0]) if isinstance(peer, tuple) else "")
        except TooManyConnections as error:
            self._answered = True
            transport.write(final_answer(error))
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self._census.leave(self)

    def data_received(self, data: bytes) -> None:
        if self._answered:
            return  # a body, or too much of a head
        begin = max(len(self._head) - len(_END_OF_HEAD), 0)
        self._head += data
        most = self._census.limits.head_bytes
        end = self._head.find(_END_OF_HEAD, begin, most)
        if end >= 0:
            self._finish(self._answer(bytes(self._head[:end])))
        elif len(self._head) >= most:
            fact, remedy = f"its head exceeds {most} bytes", "send less, or raise connections.head_bytes"
            self._refuse(HeadTooLarge("request", fact, remedy))

    def expire(self, wait: Wait) -> None:
        if wait is Wait.CLOSING or not self._head:
            self._transport.abort()
            return
        fact = f"its head did not arrive within {self._census.limits.head_seconds:g} s"
        self._refuse(TooSlow("request", fact, "send it at once, or raise connections.head_seconds"))

    def drop(self) -> None:
        self._transport.abort()

    def _refuse(self, error: WardrobeError) -> None:
        self._census.refused[error.code] += 1
        self._finish(final_answer(error))

    def _finish(self, answer: bytes) -> None:
        """Answer, and read on for a while: closing over unread bytes resets the connection."""
        self._answered = True
        self._head.clear()
        self._census.waits[Wait.HEAD].pop(self, None)
        self._census.waits[Wait.CLOSING][self] = self._census.now()
        self._transport.write(answer)
        self._transport.write_eof()


def response(head: bytes, situation: Outage, pages: Pages | None = None) -> bytes:
    """Return the whole HTTP answer to a request with this `head`; `pages` may read it in a browser."""
    method, _, rest = head.partition(b" ")
    path = rest.partition(b" ")[0].partition(b"?")[0]
    headers = _headers(head)
    lines = _shown(id_headers(path, headers.get(HEADER, b"")))
    if path != b"/livez":
        lines.append(f"retry-after: {situation.retry_after_seconds}")
    if pages is not None:
        lines += _shown(pages.answer(headers.get(b"origin")))
        asked = pages.preflight(headers, ("GET", "POST"))
        if method == b"OPTIONS" and asked is not None:
            return "\r\n".join(
                ("HTTP/1.1 204 No Content", "connection: close", *lines, *_shown(asked), "", "")
            ).encode()
    status = 200 if path == b"/livez" else 503
    return render(status, _body(path, situation), lines, headless=method == b"HEAD")


def _headers(head: bytes) -> dict[bytes, bytes]:
    lines = (line.partition(b":") for line in head.split(b"\r\n")[1:])
    return {name.strip().lower(): value.strip() for name, _, value in lines}


def _shown(lines: Iterable[Line]) -> list[str]:
    return [f"{name.decode('latin-1')}: {value.decode('latin-1')}" for name, value in lines]


def _body(path: bytes, situation: Outage) -> dict[str, object]:
    if path == b"/livez":
        return {"status": "alive", "state": situation.state}
    if path == b"/readyz":
        reasons = {"reasons": [situation.reason]} if situation.reason else {}
        return {"status": "not ready", "state": situation.state, **reasons}
    message = f"{situation.message}; retry in {situation.retry_after_seconds} s"
    error = {"message": message, "type": "server_error", "param": None, "code": f"engine_{situation.state}"}
    if path.startswith(ANTHROPIC_PATHS):
        return {"type": "error", "error": {**error, "type": anthropic_type(503)}}
    return {"error": error}
