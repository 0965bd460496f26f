"""uvicorn's own protocol on httptools, with limits: nothing is kept of a connection that is not bounded.

httptools is the fastest parser there is for uvicorn and has no limits at all; h11 has limits on a head's
bytes and lines, none on its time, and costs half of the requests per second (README). So the bytes are
counted here before they are parsed. Invariants: what is kept of a head is at most `head_bytes` and one
read beyond; of what surrounds a body (chunk sizes, trailers) nothing is kept; at most `PIPELINE` requests
wait for their turn; a connection that nobody uses is closed.
"""

from __future__ import annotations

import asyncio
from typing import Any

import httptools
from uvicorn.config import Config
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from registry.errors import WardrobeError
from serve.connections.census import Census, Wait
from serve.connections.refusals import final_answer
from serve.errors import (
    HeadTooLarge,
    MalformedRequest,
    TargetTooLong,
    TooManyConnections,
    TooSlow,
    UpgradeRefused,
)
from serve.settings import ConnectionLimits

PIPELINE = 16
"""Requests that may wait on one connection; hardly any client sends a second before its first answer."""

_FORWARDED = frozenset({b"x-forwarded-for", b"x-forwarded-proto"})
"""What uvicorn's middleware for proxies looks for; a request without them need not go through it."""

FRAMING_SHARE = 8
"""Bytes around a chunked body that each of its own bytes pays for: a chunk of one byte needs five."""


class LimitedProtocol(HttpToolsProtocol):
    """One connection; `census` (of the class that `limited` makes) holds its limits and knows its waits."""

    census: Census

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        limits = self.census.limits
        self._proxied: Any = self.app
        self._straight = self.app.app if isinstance(self.app, ProxyHeadersMiddleware) else self.app
        self._head_bytes = limits.head_bytes
        self._head_lines = limits.head_lines
        self._idle = self.census.waits[Wait.IDLE]
        self._heads = self.census.waits[Wait.HEAD]
        self._leftovers = self.census.waits[Wait.LEFTOVER]
        self._room = limits.head_bytes  # of what is not a body, until the next message
        self._content = 0  # bytes of the body in the present read
        self._begun = False  # a message has begun and is not complete
        self._in_body = False  # its head is complete
        self._shut = False  # answered for the last time: what still comes is thrown away
        self._fault: WardrobeError | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection in, or turn it away."""
        super().connection_made(transport)
        try:
            self.census.enter(self, self.client[0] if self.client else "")
        except TooManyConnections as error:
            self._shut = True
            transport.write(final_answer(error))
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget it."""
        self._shut = True
        self.census.leave(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what has come, as far as it is within the limits."""
        while data and not self._shut:
            if self._in_body:
                self._content = 0
                if self._feed(data):
                    self._charge_framing(len(data))
                return
            now, data = data[: self._room], data[self._room :]
            self._room -= len(now)  # a head that is complete, or a message, puts it back
            if not self._feed(now):
                self._charge_head()

    def _feed(self, data: bytes) -> bool:
        """Parse `data`, and return whether it ended inside a body."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            if self._should_upgrade():
                self._refuse(UpgradeRefused("upgrade", "websockets are not served", "use HTTP"))
            elif self.cycle is not None:
                # The parser has skipped the body, if there was one: what follows cannot be told apart.
                self._shut = True
                self.cycle.keep_alive = False
        except httptools.HttpParserError:
            self._refuse(self._fault or MalformedRequest("request", "is not HTTP/1.1", "send HTTP/1.1"))
        return self._in_body and not self._shut

    def _charge_head(self) -> None:
        """Refuse a head that is too long, and wait for the rest of another."""
        if self._shut:
            return
        if self._room <= 0:
            self._refuse(self._too_large())
        elif self._begun:
            self._heads.setdefault(self, self.census.now())

    def _charge_framing(self, size: int) -> None:
        """Refuse a body that is nearly all chunk sizes, extensions and trailers."""
        framing = size - self._content
        self._room = min(self._head_bytes, self._room + FRAMING_SHARE * self._content - framing)
        if self._room < 0:
            fact = f"has more than {self._head_bytes} bytes around its chunks"
            self._refuse(HeadTooLarge("body", fact, "send larger chunks, without extensions and trailers"))

    def _should_upgrade(self) -> bool:
        return self._get_upgrade() == b"websocket"

    def on_message_begin(self) -> None:
        """Begin a head."""
        if len(self.pipeline) >= PIPELINE:
            fact = f"more than {PIPELINE} requests wait on one connection"
            self._fault = MalformedRequest("request", fact, "wait for answers, or use more connections")
            raise self._fault
        self._begun = True
        self._idle.pop(self, None)
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep one line of the head; trailers of a body are not kept."""
        if self._in_body:
            return
        if len(self.headers) >= self._head_lines:
            fact = f"has more than {self._head_lines} header lines"
            self._fault = HeadTooLarge("request", fact, "send fewer, or raise connections.head_lines")
            raise self._fault
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self.expect_100_continue = True
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """Hand the request on."""
        self._in_body = True
        self._room = self._head_bytes
        self._heads.pop(self, None)
        names = [name for name, _ in self.headers]
        self.app = self._straight if _FORWARDED.isdisjoint(names) else self._proxied
        if names.count(b"host") > 1:
            self._fault = MalformedRequest("request", "has more than one Host", "send one")
            raise self._fault
        if not self.url.startswith(b"/"):
            self._name_host()
        super().on_headers_complete()

    def _name_host(self) -> None:
        """Take the host from a target in absolute form: it counts instead of the header (RFC 9112, 3.2.2)."""
        found = httptools.parse_url(self.url)
        if not found.host:
            return
        port = b"" if found.port is None else b":%d" % found.port
        self.headers[:] = [line for line in self.headers if line[0] != b"host"]
        self.headers.append((b"host", found.host + port))

    def on_body(self, body: bytes) -> None:
        """Take a piece of a body."""
        self._content += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End a body, or a head without one."""
        self._begun = self._in_body = False
        self._room = self._head_bytes
        super().on_message_complete()
        if self._leftovers and self._leftovers.pop(self, None) is not None:
            self._idle[self] = self.census.now()

    def on_response_complete(self) -> None:
        """Begin with the next request, or wait for it: the census' sweep stands in for uvicorn's timers."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            self.census.waits[Wait.CLOSING][self] = self.census.now()
            return
        self.flow.resume_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            task = self.loop.create_task(cycle.run_asgi(app))
            task.add_done_callback(self.tasks.discard)
            self.tasks.add(task)
        elif self._shut:
            self._close()
        elif self._in_body:
            self._leftovers[self] = self.census.now()
        elif not self._begun:
            self._idle[self] = self.census.now()

    def pause_writing(self) -> None:
        """Note that the client does not take its answer."""
        super().pause_writing()
        self.census.waits[Wait.WRITE][self] = self.census.now()

    def resume_writing(self) -> None:
        """Note that it does again."""
        super().resume_writing()
        self.census.waits[Wait.WRITE].pop(self, None)

    def shutdown(self) -> None:
        """End once nothing is in flight, as the server drains."""
        super().shutdown()
        if self.transport.is_closing():  # then it has no request
            self.census.waits[Wait.CLOSING][self] = self.census.now()

    def expire(self, wait: Wait) -> None:
        """End: `wait` has lasted too long."""
        if wait in {Wait.WRITE, Wait.CLOSING}:
            self.transport.abort()
        elif wait is Wait.HEAD and self._begun:
            fact = f"its head did not arrive within {self.census.limits.head_seconds:g} s"
            self._refuse(TooSlow("request", fact, "send it at once, or raise connections.head_seconds"))
        else:
            self._close()

    def drop(self) -> None:
        """End at once and without a word: the place is needed."""
        self._shut = True
        self.transport.abort()

    def _refuse(self, error: WardrobeError) -> None:
        """Answer for the last time, if no other answer is under way, and take nothing more."""
        self._shut = True
        self.census.refused[error.code] += 1
        cycle = self.cycle
        silent = self.transport.is_closing()
        if cycle is not None and not cycle.response_complete:
            if not self._in_body:
                cycle.keep_alive = False
                return  # the answers that are due go out first
            silent = silent or cycle.response_started or bool(self.pipeline)
            cycle.disconnected = True
            cycle.message_event.set()
        if not silent:
            self.transport.write(final_answer(error))
        self._close()

    def _close(self) -> None:
        """Close once what was written has gone out, and read on until then.

        Closing over bytes that nobody has read resets the connection, and the last answer with it.
        """
        self._shut = True
        self._idle.pop(self, None)
        if self.transport.is_closing():
            return
        self.census.waits[Wait.CLOSING][self] = self.census.now()
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()

    def _too_large(self) -> WardrobeError:
        fact = f"exceeds {self._head_bytes} bytes"
        remedy = "send less, or raise connections.head_bytes"
        if self._begun and not self.headers and len(self.url) > self._head_bytes // 2:
            return TargetTooLong("request", f"its first line {fact}", remedy)
        return HeadTooLarge("request", f"its head {fact}", remedy)


def limited(limits: ConnectionLimits) -> type[LimitedProtocol]:
    """Return the protocol of one server, with a census of its own; give it to uvicorn as `http`."""
    return type("LimitedProtocol", (LimitedProtocol,), {"census": Census(limits)})
