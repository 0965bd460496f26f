"""No request is lost to a bad canary: its answer is held back until there is a first byte of it.

Owns the decision that the control answers instead. Nothing of a failed canary's answer has been sent by
then, so the client sees one answer, of one version. Not rescued: an error of the client, a client that
left, a time that is over, and anything while the engine itself is dead. Invariant: the outcome that is
booked is the canary's own.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from enum import StrEnum

from starlette.types import Message

from registry.errors import WardrobeError
from serve.router.exchange import Exchange
from serve.router.streams import Outcome, begins_with_error


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

    `alive` tells whether the engine is. Once `failure` is set, nothing more is sent to the client.
    """

    __slots__ = ("_alive", "_passing", "_start", "failure")

    _start: Message | None
    _passing: bool
    failure: Failure
    _alive: Callable[[], bool]

    def hold(self, alive: Callable[[], bool]) -> None:
        """Begin to hold back."""
        self._alive = alive
        self._passing = False
        self._start = None
        self.failure = Failure.NONE

    def send(self, message: Message) -> Awaitable[None]:
        """Pass one message of the answer on, from its first byte on."""
        return Exchange.send(self, message) if self._passing else self._hold(message)

    async def _hold(self, message: Message) -> None:
        if self.failure:
            return
        if message["type"] == "http.response.start":
            status = message["status"]
            if status >= 500 and self._fail(Failure.BUSY if status == 503 else Failure.STATUS):
                return
            self._start = message
        elif message["type"] == "http.response.body" and self._start is not None:
            body = message.get("body", b"")
            if not body and message.get("more_body", False):
                return  # nothing yet
            if self._is_error(body) and self._fail(Failure.EVENT):
                return
            self._passing = True
            await Exchange.send(self, self._start)
            await Exchange.send(self, message)

    def _is_error(self, body: bytes) -> bool:
        return self._start is not None and self._start["status"] < 400 and begins_with_error(body)

    def _fail(self, failure: Failure) -> bool:
        """Return True when the control is to answer."""
        if self._passing or self.left or self.timed_out or not self._alive():
            return False
        self.failure = failure
        self.rescued = True
        return True

    async def break_off(self, error: WardrobeError) -> None:
        """End an answer that its server will not end, unless the control can give another."""
        if not self.failure and not self._fail(Failure.BROKEN):
            await Exchange.break_off(self, error)

    def book(self, outcome: Outcome) -> None:
        """Count a request that never reached the engine: the version was not loaded."""
        self._fail(Failure.BUSY if outcome is Outcome.REJECTED else Failure.LOAD)
        Exchange.book(self, outcome)

    def settle(self) -> Outcome:
        """Book how the canary did, and return it; an end without a byte is a failure too."""
        if not self.failure and not self.status:
            self._fail(Failure.BROKEN)
        return Exchange.settle(self)

    def _judge(self, tail: bytes) -> Outcome:
        if self.failure:
            return Outcome.REJECTED if self.failure is Failure.BUSY else Outcome.ENGINE_ERROR
        return super()._judge(tail)
