"""No request is lost to a bad canary: its answer is held back until there is a first byte of it.

Owns the decision that the control answers instead. Nothing of a failed canary's answer has been sent by
then, so the client sees one answer, of one version. Not rescued: an error of the client, a client that
left, a time that is over, and anything while the engine itself is dead. Invariant: the outcome that is
booked is the canary's own.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

from starlette.types import Message, Send

from registry.errors import WardrobeError
from serve.outcomes import Outcome
from serve.router.exchange import Exchange
from serve.router.streams import begins_with_error
from serve.router.targets import RouteTarget


class Failure(StrEnum):
    """Why the control was asked (a closed set of metric labels); `BUSY` is nobody's failure."""

    NONE = ""
    LOAD = "load"  # it could not be loaded or proved
    BUSY = "busy"  # no room for it, or a 503 of the server behind
    STATUS = "status"  # a 5xx
    EVENT = "event"  # the stream's first chunk is an error
    BROKEN = "broken"  # an exception, or an end, before the first byte


class HeldExchange(Exchange):
    """The exchange of a request that was assigned to the canary.

    `hold` begins it: the client's side is put aside until there is a first byte, and from then on a chunk
    costs no more than any other exchange's. Once `failure` is set, nothing more reaches the client.
    """

    __slots__ = ("_alive", "_client", "_held", "failure")

    def hold(self, alive: Callable[[], bool]) -> None:
        """Begin to hold back; `alive` tells whether the engine is."""
        self._alive = alive
        self._client: Send | None = self._send
        self._held: Message | None = None
        self._send = self._hold
        self.failure = Failure.NONE

    async def _hold(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            if self.status >= 500 and self._fail(Failure.BUSY if self.status == 503 else Failure.STATUS):
                return
            self._held = message
        elif message["type"] == "http.response.body" and self._held is not None:
            body = message.get("body", b"")
            if not body and message.get("more_body", False):
                return  # nothing yet
            if self.streaming and begins_with_error(body) and self._fail(Failure.EVENT):
                return
            send = self._pass()
            await send(self._held)
            await send(message)

    def _pass(self) -> Send:
        """Let everything through from now on."""
        assert self._client is not None, "passed once"
        self._send, self._client = self._client, None
        return self._send

    def _fail(self, failure: Failure) -> bool:
        """Return True when the control is to answer."""
        if self._client is None or self.left or self.timed_out or not self._alive():
            return False
        self.failure = failure
        self.rescued = True
        self._send = _swallow
        return True

    async def break_off(self, error: WardrobeError) -> None:
        """End an answer that its server will not end, unless the control can give another."""
        if self.failure or self._fail(Failure.BROKEN):
            return
        if self._client is not None:
            self._pass()
            self.status, self.streaming = 0, False  # nothing of it was sent
        await super().break_off(error)

    def book(self, outcome: Outcome) -> None:
        """Count a request that never reached the engine: the version was not loaded."""
        self._fail(Failure.BUSY if outcome is Outcome.REJECTED else Failure.LOAD)
        super().book(outcome)

    def settle(self) -> Outcome:
        """Book how the canary did, and return it; an end without a byte is a failure too."""
        if not self.failure:
            self._fail(Failure.BROKEN)
        return super().settle()

    def again(self, target: RouteTarget, began: float) -> Exchange:
        """Return an exchange of the same request with another version; it books for no evidence."""
        assert self._client is not None, "nothing was sent"
        self._send = self._client
        return super().again(target, began)

    def _judge(self, tail: bytes) -> Outcome:
        if self.failure:
            return Outcome.REJECTED if self.failure is Failure.BUSY else Outcome.ENGINE_ERROR
        return super()._judge(tail)


async def _swallow(message: Message) -> None:
    """Keep a failed answer from the client."""
