"""A body on its way in: it has to keep a pace, and all bodies together have to fit into memory.

One `Arrivals` per router. A body that has arrived with its head costs a step of a generator and nothing
else. Invariant: what is counted in `held` is given back, whoever gives up.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Generator
from typing import Any

from starlette.types import Message, Receive

from registry.errors import LimitExceeded
from serve.errors import Busy, ClientLeft, TooSlow
from serve.settings import RequestLimits

BYTES_PER_SECOND = 64 * 1024
"""What has arrived buys time at this rate: 32 MiB over a slow line, but nothing for single bytes."""


def declared_bytes(content_length: bytes | None) -> int:
    """Return how many bytes a Content-Length announces, 0 where there is none or it is not a number."""
    return int(content_length[:20]) if content_length is not None and content_length.isdigit() else 0


class Arrivals:
    """Reads bodies within `limits`; `held` are the bytes of those that were read in pieces."""

    def __init__(self, limits: RequestLimits) -> None:
        self._seconds = limits.body_seconds
        self._total_seconds = limits.total_seconds
        self._memory = limits.body_memory_bytes
        self._max_bytes = limits.max_body_bytes
        self.held = 0

    async def body(self, receive: Receive, declared: bytes | None, limit: int) -> tuple[bytes, int]:
        """Return the whole body, and how much of it is counted in `held`, for the caller to take off.

        Raises: as `rest`.
        """
        steps = receive().__await__()
        try:
            waited_for = steps.send(None)
        except StopIteration as come:
            message: Message = come.value
        else:
            message = await self._wait(steps, waited_for)
        if message["type"] != "http.request":
            raise ClientLeft
        body: bytes = message.get("body", b"")
        if body and len(body) <= limit and not message.get("more_body", False):
            return body, 0
        body = await self.rest(receive, message, declared, limit)
        return body, len(body)

    async def _wait(self, steps: Generator[Any, Any, Message], waited_for: Any) -> Message:
        """Return the first message of a body that had not come with its head."""
        try:
            async with asyncio.timeout_at(self._due(_now(), 0)) as timer:
                return await _resume(steps, waited_for)
        except TimeoutError:
            if not timer.expired():
                raise
            raise self._too_slow() from None

    def check_declared(self, declared: bytes | None, limit: int) -> None:
        """Pass where a Content-Length is within `limit`, or is none.

        Raises: LimitExceeded.
        """
        announced = declared_bytes(declared)
        if announced > limit:
            raise self._too_large(announced, limit)

    async def rest(self, receive: Receive, message: Message, declared: bytes | None, limit: int) -> bytes:
        """Return the whole body that begins with `message`, by Content-Length or chunked.

        Its bytes are counted in `held`; the caller takes them off again when the request is over.

        Raises: LimitExceeded: over `limit` bytes. Busy: no memory for it. TooSlow. ClientLeft.
        """
        self.check_declared(declared, limit)
        began, chunks, size = _now(), [], 0
        try:
            async with asyncio.timeout_at(self._due(began, 0)) as timer:
                while True:
                    chunk = _chunk(message)
                    chunks.append(chunk)
                    size += len(chunk)
                    self.held += len(chunk)
                    more = message.get("more_body", False)
                    self._check_size(size, limit, more=more)
                    if not more:
                        break
                    timer.reschedule(self._due(began, size))
                    message = await receive()
        except BaseException as error:
            self.held -= size
            if isinstance(error, TimeoutError) and timer.expired():
                raise self._too_slow() from None
            raise
        return b"".join(chunks)

    async def whole(self, receive: Receive, declared: bytes | None, limit: int) -> bytes:
        """Return the whole body of a request that is answered at once.

        Raises: as `rest`.
        """
        self.check_declared(declared, limit)
        body, held = await self.body(receive, declared, limit)
        self.held -= held
        return body

    def paced(self, receive: Receive) -> Receive:
        """Return a `receive` that raises TooSlow where a body does not keep the pace; nothing is kept."""
        began, size, complete = _now(), 0, False

        async def receive_in_time() -> Message:
            nonlocal size, complete
            if complete:
                return await receive()
            try:
                async with asyncio.timeout_at(self._due(began, size)) as timer:
                    message = await receive()
            except TimeoutError:
                if not timer.expired():
                    raise
                raise self._too_slow() from None
            size += len(message.get("body", b""))
            complete = not message.get("more_body", False)
            return message

        return receive_in_time

    def _check_size(self, size: int, limit: int, *, more: bool) -> None:
        if size > limit:
            raise self._too_large(size, limit)
        if more and self.held > self._memory:
            raise self._no_memory()

    def _due(self, began: float, size: int) -> float:
        """Return when the next piece of a body must be there."""
        seconds = self._seconds + size / BYTES_PER_SECOND
        return began + (seconds if self._total_seconds is None else min(seconds, self._total_seconds))

    def _too_slow(self) -> TooSlow:
        if self._total_seconds is not None and self._total_seconds < self._seconds:
            fact, setting = f"did not arrive within {self._total_seconds:g} s", "total_seconds"
        else:
            fact = f"did not arrive within {self._seconds:g} s and one more for each 64 KiB"
            setting = "body_seconds"
        return TooSlow("body", fact, f"send it faster, or raise limits.{setting}")

    def _too_large(self, size: int, limit: int) -> LimitExceeded:
        settable = ", or raise limits.max_body_bytes" if limit == self._max_bytes else ""
        fact = f"{size} bytes and more exceed this server's {limit}"
        return LimitExceeded("body", fact, f"send less{settable}")

    def _no_memory(self) -> Busy:
        fact = f"holds {self.held} bytes of bodies, and {self._memory} are allowed"
        remedy = "try again, or raise limits.body_memory_bytes"
        return Busy("server", fact, remedy, rejection="body_memory")


def _now() -> float:
    return asyncio.get_running_loop().time()


@types.coroutine
def _resume(steps: Generator[Any, Any, Message], waited_for: Any) -> Generator[Any, Any, Message]:
    """Await the rest of a coroutine that has been taken to its first wait."""
    while True:
        failure: BaseException | None = None
        try:
            came = yield waited_for
        except BaseException as error:  # noqa: BLE001 - whatever it is, the coroutine hears of it
            failure = error
        try:
            waited_for = steps.send(came) if failure is None else steps.throw(failure)
        except StopIteration as done:
            message: Message = done.value
            return message


def _chunk(message: Message) -> bytes:
    if message["type"] != "http.request":
        raise ClientLeft
    chunk: bytes = message.get("body", b"")
    return chunk
