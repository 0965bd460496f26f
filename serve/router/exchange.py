"""One request's way through the server behind us, and its outcome.

An exchange gives the body once and then waits for the real disconnect, adds our headers to the answer,
and watches the answer to its end without parsing it. It owns nothing but its own counters; the bytes of
an answer are never changed, but those of an error, which is put into this server's words. Invariant:
`settle` is called once, after the server behind has returned, or `book` when the request never got there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from functools import partial
from time import monotonic

from starlette.types import Message, Receive, Scope, Send

from registry.errors import WardrobeError
from serve.errors import EngineFailed
from serve.groups.charges import Charge
from serve.groups.queue import SeatTicket
from serve.outcomes import Outcome
from serve.protocol.body import Fields
from serve.protocol.forwarded import MAX_BYTES as MAX_ERROR_BYTES
from serve.protocol.forwarded import read_event, read_forwarded
from serve.protocol.paths import Dialect, Endpoint
from serve.request_id import ANTHROPIC_HEADER, HEADER
from serve.responses.turn import ResponseTurn
from serve.rollout.recording.baselines import BaselineArm
from serve.rollout.recording.recorder import Text
from serve.router.booking import Booking
from serve.router.endpoints.answers import MAX_BYTES, MAX_CHUNKS, read_text
from serve.router.endpoints.openai_errors import error_event, send_error
from serve.router.endpoints.response_id import without_mac
from serve.router.streams import (
    TAIL_CHUNKS,
    TokenUsage,
    has_delta,
    is_usage,
    judge_status,
    judge_stream,
    read_finish,
    read_usage,
)
from serve.router.targets import RouteTarget
from serve.router.telemetry.accounts import Account

_EVENT_STREAM = b"text/event-stream"
_ERROR_EVENTS = (b'data: {"error"', b"event: error\n")
"""How vLLM's error events begin; each is a chunk of its own."""
_USAGE_BYTES = 4096
"""Where an answer in one piece is searched for its usage: every server puts it last."""


class Exchange:
    """The receive and send of one forwarded request.

    `receive` and `send` of `__init__` are the client's side, `scope`, `headers` and `fields` what it sent;
    `began` is the router's first sight of it, on the monotonic clock; `unit` its unit's digest. `body` and
    `request_id` (the answer's) are set before it is used. Its end is booked for `booking` or `baseline`,
    where there is one; `rescued` then says that another version was asked to answer. A failure of the engine
    waits in `doubt` until `conclude` says whose it was. `generates` says that a version is asked to write
    something, `names_version` that what it did not write may name it, too. `turn` keeps the answer of a
    responses request, where it is to be kept; `ticket` is its seat, and is told what it used; `charge` is who
    pays for it. It `began` when it came, and the engine was `asked` when it had a seat and its version.
    """

    __slots__ = (
        "_chunks", "_first_at", "_last", "_left", "_receive", "_refused", "_send", "_tail", "_usage",
        "asked", "baseline", "began", "body", "booking", "charge", "doubt", "echoed", "endpoint", "fields",
        "finished", "generates", "headers", "names_version", "outcome", "request_id", "rescued", "scope",
        "status", "streaming", "target", "ticket", "timed_out", "turn", "unit",
    )  # fmt: skip

    body: bytes | None
    request_id: bytes
    outcome: Outcome
    _tail: deque[bytes]

    def __init__(
        self,
        target: RouteTarget,
        endpoint: Endpoint,
        scope: Scope,
        headers: dict[bytes, bytes],
        fields: Fields,
        unit: str,
        receive: Receive,
        send: Send,
        began: float,
    ) -> None:
        self.target = target
        self.endpoint = endpoint
        self.scope = scope
        self.headers = headers
        self.fields = fields
        self.unit = unit
        self._receive = receive
        self._send = send
        self.began = began
        self.asked = monotonic()
        self.booking: Booking | None = None
        self.baseline: BaselineArm | None = None
        self.turn: ResponseTurn | None = None
        self.charge: Charge | None = None
        self.ticket: SeatTicket | None = None
        self.doubt: Callable[..., bool] | None = None
        self.names_version = self.generates = True
        self.echoed = False
        self._first_at = 0.0
        self._last = b""
        self._usage: TokenUsage | None = None
        self.status = self._chunks = 0
        self.streaming = self.finished = self.timed_out = self._left = self.rescued = self._refused = False
        self.outcome = Outcome.CANCELLED

    @property
    def left(self) -> bool:
        """Return True when the client was seen to leave."""
        return self._left

    @property
    def pieces(self) -> int:
        """Return how many pieces of a streamed answer were seen: at least as many tokens."""
        return max(0, self._chunks - 1)

    def pays(self, charge: Charge | None) -> None:
        """Have `charge` pay for the answer."""
        self.charge = charge
        if charge is not None:
            charge.progress = self

    def abandon(self) -> None:
        """Say that this end cut the request short: it is nobody's failure."""
        self._left = True

    def again(self, target: RouteTarget, began: float) -> Exchange:
        """Return an exchange of the same request with another version; it books for no evidence."""
        other = Exchange(
            target, self.endpoint, self.scope, self.headers, self.fields, self.unit,
            self._receive, self._send, began,
        )  # fmt: skip
        other.turn = self.turn
        other.pays(self.charge)
        other.ticket = self.ticket
        other.names_version = self.names_version
        other.generates = self.generates
        return other

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
                if body.startswith(_ERROR_EVENTS):
                    message = {**message, "body": self._own_event(body)}
                    body = message["body"]
                self._chunks += 1
                self._tail.append(body)
                if self.charge is not None and self.charge.hides_usage and is_usage(body):
                    return _nothing()
                if not self._first_at and has_delta(body):
                    self._first_at = monotonic()
            elif self._refused:
                return self._end_refusal(message)
            elif body:
                self._last = body
            if not message.get("more_body", False):
                self.finished = True
                if self.charge is not None:
                    self._pay(self.charge)
            return self._send(message)
        if message["type"] == "http.response.start":
            self.status = message["status"]
            if self.status >= 400:
                self._refused = True
                return _nothing()
            message = self._begin(message)
        return self._send(message)

    def _begin(self, message: Message) -> Message:
        headers = self._our_headers()
        for header in message.get("headers", ()):
            name = header[0]
            if name == b"content-type":
                if header[1].startswith(_EVENT_STREAM):
                    self.streaming = True
                    taped = self.booking is not None and self.booking.wants_text
                    self._tail = deque(maxlen=MAX_CHUNKS if taped else TAIL_CHUNKS)
                    headers.append((b"cache-control", b"no-cache"))
            elif name == HEADER or (name == b"cache-control" and self.streaming):
                continue
            headers.append(header)
        return {**message, "headers": headers}

    async def _end_refusal(self, message: Message) -> None:
        """Gather an error of the server behind, and send it in this server's words once it is whole."""
        self._last = (self._last + message.get("body", b""))[:MAX_ERROR_BYTES]
        if message.get("more_body", False):
            return
        self.finished = True
        self._refused = False
        anthropic = self.endpoint.dialect is Dialect.MESSAGES
        error = read_forwarded(self.status, self._last, self.fields, messages=anthropic)
        self.status = error.http_status
        if self.charge is not None and self.status < 500:
            self.charge.pay((0, 0, 0))
        await send_error(self._send, error, self.endpoint.dialect, self._our_headers())

    def _own_event(self, event: bytes) -> bytes:
        """Return an error event of the server behind in this server's words."""
        anthropic = self.endpoint.dialect is Dialect.MESSAGES
        error = read_event(event, self.fields, messages=anthropic)
        return event if error is None else error_event(error, self.endpoint.dialect, self._chunks)

    def _our_headers(self) -> list[tuple[bytes, bytes]]:
        told, named = self.target.headers, self.request_id
        if self.status >= 400 or not self.generates:
            # What costs nothing must not tell which arm a unit is in, nor can it be rated.
            if not self.names_version:
                told = ()
                named = named if self.echoed else named.partition(b".")[0]
            elif self.target.tag and not self.echoed:
                named = without_mac(named)
        headers = [*told, (HEADER, named)]
        if self.charge is not None:
            headers += self.charge.headers(self.endpoint.dialect)
        if self.endpoint.dialect is Dialect.MESSAGES:
            headers.append((ANTHROPIC_HEADER, named))
        return headers

    async def break_off(self, error: WardrobeError) -> None:
        """End an answer that its server will not end: by an error, as far as one can still be sent.

        A stream gets an error event, never a silent end; half a body is left to the server to cut.
        """
        if self.finished:
            return
        if not self.status or self._refused:
            self._refused = False
            # What broke off is raised again for the server's log, and it closes the connection on that.
            closing = [(b"connection", b"close")] if isinstance(error, EngineFailed) else []
            self.status = error.http_status
            headers = [*self._our_headers(), *closing]
            await send_error(self._send, error, self.endpoint.dialect, headers)
        elif self.streaming:
            event = error_event(error, self.endpoint.dialect, self._chunks)
            await self._send({"type": "http.response.body", "body": event, "more_body": False})

    def book(self, outcome: Outcome) -> None:
        """Count a request that never reached the engine."""
        self.outcome = outcome
        self.target.series.outcomes[self.endpoint.operation, outcome] += 1
        if self.charge is not None and not self.rescued:
            self.charge.settle(outcome, None, self._made)
        if self.booking is not None:
            self._record_evidence(None, None, 0, b"", doubtful=False)
        elif self.baseline is not None:
            self.baseline.observe(None, None, outcome)

    def settle(self) -> Outcome:
        """Book the request under the version that answered, and return how it ended."""
        ended = monotonic()
        tail = self._ending()
        if self.status == 200 and self.finished and not (self.streaming or self._left or self.timed_out):
            outcome = Outcome.OK
        else:
            outcome = self._judge(tail)
        self.outcome = outcome
        if self.turn is not None and outcome is Outcome.OK:
            self.turn.keep(tail if self.streaming else self._last, streamed=self.streaming)
        series = self.target.series
        series.outcomes[self.endpoint.operation, outcome] += 1
        series.duration.observe(ended - self.began)
        usage = self._usage or read_usage(tail)
        tokens = 0
        if usage is not None:
            series.count_tokens(usage)
            tokens = usage[1]
            if self.ticket is not None:
                self.ticket.used = usage
        elif self.streaming:
            tokens = self.pieces  # data events: one token each, bar merged ones
        if self.charge is not None and not self.rescued:
            self.charge.settle(outcome, usage, self._made)
        first_token = per_token = None
        if self.streaming and self._first_at:
            first_token = self._first_at - self.began
            series.ttft.observe(first_token)
            if tokens > 1:
                per_token = (ended - self._first_at) / (tokens - 1)
                series.per_token.observe(per_token)
        if self.booking is not None:
            self._record_evidence(first_token, per_token, tokens, tail, doubtful=outcome.blames_version)
        elif self.baseline is not None:
            self.baseline.observe(first_token, per_token, outcome)
        return outcome

    def _pay(self, charge: Charge) -> None:
        """Pay for an answer that tells its usage before its client has the last of it, and can ask again."""
        self._usage = usage = read_usage(self._ending())
        if usage is not None and self.status < 400 and not self.rescued:
            charge.pay(usage)

    def _ending(self) -> bytes:
        """Return the last bytes of the answer."""
        return b"".join(list(self._tail)[-TAIL_CHUNKS:]) if self.streaming else self._last[-_USAGE_BYTES:]

    def _made(self) -> int:
        """Return the tokens of an answer that does not tell: as it was seen, else at the version's pace."""
        if self.streaming or self.status:
            return self.pieces
        pace = self.target.series.per_token
        answered = sum(pace.counts)
        return int((monotonic() - self.asked) * answered / pace.total) if pace.total else 0

    def _record_evidence(
        self, first_token: float | None, per_token: float | None, tokens: int, tail: bytes, *, doubtful: bool
    ) -> None:
        booking = self.booking
        assert booking is not None, "or there is no evidence to keep"
        observe = partial(
            booking.recorder.observe,
            booking.segment,
            booking.arm,
            booking.unit,
            source=booking.source,
            first_turn=booking.first_turn,
            rescued=self.rescued,
            first_token=first_token,
            per_token=per_token,
            output_tokens=tokens,
            finish=read_finish(tail),
            text=self._late_text() if booking.wants_text and self.outcome is Outcome.OK else None,
        )
        if doubtful:
            self.doubt = observe
        else:
            booking.mirrored &= observe(outcome=self.outcome.value)  # no evidence, no copy

    def conclude(self, outcome: str) -> None:
        """Book a failure that waited in `doubt` as `outcome`: the version's own, or nobody's."""
        observe, self.doubt = self.doubt, None
        if observe is not None:
            observe(outcome=outcome)

    def account(self) -> Account:
        """Return what became of the request; asked only where accounts are kept, after its end."""
        tail = self._ending()
        return Account(
            adapter=self.target.series.adapter,
            version=self.target.series.version,
            arm=self.target.arm.value,
            status=self.status,
            outcome=self.outcome.value,
            stream=self.streaming,
            seconds=monotonic() - self.began,
            first_token=self._first_at - self.began if self._first_at else None,
            usage=read_usage(tail),
            finish=read_finish(tail),
        )

    def _late_text(self) -> Text:
        """Return what takes the text out of the whole answer later, None where it was too long."""
        kept = list(self._tail) if self.streaming else [self._last]
        if (self.streaming and self._chunks > MAX_CHUNKS) or not 0 < sum(map(len, kept)) <= MAX_BYTES:
            return None
        return partial(read_text, kept, self.endpoint.dialect, streamed=self.streaming)

    def _judge(self, tail: bytes) -> Outcome:
        if self.timed_out:
            return Outcome.TIMEOUT
        if self._left:
            return Outcome.CANCELLED
        if not self.finished:
            return Outcome.ENGINE_ERROR
        if self.streaming and self.status < 400:
            return judge_stream(tail, self.endpoint.dialect)
        return judge_status(self.status)


async def _nothing() -> None:
    """Wait for the rest of an error before anything of it is sent."""
