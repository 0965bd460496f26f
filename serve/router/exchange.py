"""One request's way through the server behind us, and its outcome.

An exchange gives the body once and then waits for the real disconnect, adds our headers to the answer,
and watches the answer to its end without parsing it. It owns nothing but its own counters; the bytes of
an answer are never changed. Invariant: `settle` is called once, after the server behind has returned.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable
from time import monotonic

from starlette.types import Message, Receive, Send

from registry.errors import WardrobeError
from serve.router.openai_errors import error_event, send_error
from serve.router.paths import Endpoint
from serve.router.streams import TAIL_CHUNKS, Outcome, has_delta, judge_status, judge_stream, read_usage
from serve.router.targets import Target

_EVENT_STREAM = b"text/event-stream"
_USAGE_BYTES = 4096
"""Where an answer in one piece is searched for its usage: every server puts it last."""


class Exchange:
    """The receive and send of one forwarded request.

    `receive` and `send` of `__init__` are the client's side; `began` is the router's first sight of the
    request, on the monotonic clock. `body` and `request_id` (the answer's) are set before it is used.
    """

    __slots__ = (
        "_chunks", "_endpoint", "_first_at", "_last", "_left", "_receive", "_send", "_tail", "began", "body",
        "finished", "request_id", "status", "streaming", "target", "timed_out",
    )  # fmt: skip

    body: bytes | None
    request_id: bytes

    def __init__(
        self, target: Target, endpoint: Endpoint, receive: Receive, send: Send, began: float
    ) -> None:
        self.target = target
        self._endpoint = endpoint
        self._receive = receive
        self._send = send
        self.began = began
        self._first_at = 0.0
        self._last = b""
        self.status = self._chunks = 0
        self.streaming = self.finished = self.timed_out = self._left = False

    async def receive(self) -> Message:
        """Give the body, then whatever the client does: nothing, or leaving."""
        if self.body is not None:
            body, self.body = self.body, None
            return {"type": "http.request", "body": body, "more_body": False}
        message = await self._receive()
        # A server also says `http.disconnect` once an answer is complete; that is no leaving.
        if message["type"] == "http.disconnect" and not self.finished:
            self._left = True
        return message

    def send(self, message: Message) -> Awaitable[None]:
        """Pass one message of the answer on. Not a coroutine itself: a frame less per chunk."""
        if message["type"] == "http.response.body":
            body = message.get("body")
            if body and self.streaming:
                self._chunks += 1
                self._tail.append(body)
                if not self._first_at and has_delta(body):
                    self._first_at = monotonic()
            elif body:
                self._last = body
            if not message.get("more_body", False):
                self.finished = True
            return self._send(message)
        return self._send(self._begin(message) if message["type"] == "http.response.start" else message)

    def _begin(self, message: Message) -> Message:
        self.status = message["status"]
        headers = self._our_headers()
        waiting = self.status == 503
        for header in message.get("headers", ()):
            name = header[0]
            if name == b"content-type":
                if header[1].startswith(_EVENT_STREAM):
                    self.streaming = True
                    self._tail: deque[bytes] = deque(maxlen=TAIL_CHUNKS)
            elif name == b"x-request-id":
                continue
            elif name == b"retry-after":
                waiting = False
            headers.append(header)
        if waiting:
            headers.append((b"retry-after", b"1"))  # vLLM's own "engine is busy" names no time
        return {**message, "headers": headers}

    def _our_headers(self) -> list[tuple[bytes, bytes]]:
        return [*self.target.headers, (b"x-request-id", self.request_id)]

    async def break_off(self, error: WardrobeError) -> None:
        """End an answer that its server will not end: by an error, as far as one can still be sent.

        A stream gets an error event, never a silent end; half a body is left to the server to cut.
        """
        if self.finished:
            return
        if not self.status:
            await send_error(self._send, error, self._endpoint.dialect, self._our_headers())
        elif self.streaming:
            event = error_event(error, self._endpoint.dialect)
            await self._send({"type": "http.response.body", "body": event, "more_body": False})

    def book(self, outcome: Outcome) -> None:
        """Count a request that never reached the engine."""
        self.target.series.outcomes[self._endpoint.operation, outcome] += 1

    def settle(self) -> Outcome:
        """Book the request under the version that answered, and return how it ended."""
        ended = monotonic()
        tail = b"".join(self._tail) if self.streaming else self._last[-_USAGE_BYTES:]
        if self.status == 200 and self.finished and not (self.streaming or self._left or self.timed_out):
            outcome = Outcome.OK
        else:
            outcome = self._judge(tail)
        series = self.target.series
        series.outcomes[self._endpoint.operation, outcome] += 1
        series.duration.observe(ended - self.began)
        usage = read_usage(tail)
        if usage is not None:
            series.count_tokens(usage)
        if self.streaming and self._first_at:
            self._settle_times(ended, usage[1] if usage is not None else 0)
        return outcome

    def _settle_times(self, ended: float, tokens: int) -> None:
        series = self.target.series
        series.ttft.observe(self._first_at - self.began)
        # Without a usage object the data events are counted: one token each, bar merged ones.
        gaps = (tokens or self._chunks - 1) - 1
        if gaps > 0:
            series.per_token.observe((ended - self._first_at) / gaps)

    def _judge(self, tail: bytes) -> Outcome:
        if self.timed_out:
            return Outcome.TIMEOUT
        if self._left:
            return Outcome.CANCELLED
        if not self.finished:
            return Outcome.ENGINE_ERROR
        if self.streaming and self.status < 400:
            return judge_stream(tail, self._endpoint.dialect)
        return judge_status(self.status)
