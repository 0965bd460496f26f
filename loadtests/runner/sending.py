"""One request over aiohttp: sent, read to its end, and every way of failing told from the others.

`refused` means that nobody listens, `reset` that a connection ended before any answer, `cut` that a
stream ended without its closing event. Nothing is tried again: a retry would hide what a user saw.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from loadtests.runner.reading import AnswerReader
from loadtests.runner.records import CANCELLED, RequestRecord

if TYPE_CHECKING:
    import aiohttp

# Servers close idle connections after 5 s (uvicorn); one that is reused later meets a reset.
KEEP_ALIVE_SECONDS = 3.0
_READ_BYTES = 2**18


@dataclass(frozen=True, slots=True)
class SendingLimits:
    """How long a request may take, in seconds; `cancel_after` is the client's own patience."""

    timeout: float
    cancel_after: float | None = None

    @property
    def seconds(self) -> float:
        """Return the shorter one."""
        return self.timeout if self.cancel_after is None else min(self.timeout, self.cancel_after)


class Sender:
    """Sends to one server; use it as an async context manager inside a running loop."""

    def __init__(self, url: str, key: str | None, clock: Callable[[], float]) -> None:
        self._url = url.rstrip("/")
        self._key = key
        self._clock = clock
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        import aiohttp

        headers = {"content-type": "application/json"}
        if self._key is not None:
            headers["authorization"] = f"Bearer {self._key}"
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_SECONDS),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=30),
            headers=headers,
            read_bufsize=_READ_BYTES,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def send(
        self, path: str, body: bytes, session_id: str, reading: AnswerReader, limits: SendingLimits
    ) -> None:
        """Send one request and fill in the record behind `reading`; raises nothing but cancellation."""
        record = reading.record
        try:
            async with asyncio.timeout(limits.seconds):
                await self._exchange(path, body, session_id, reading)
        except TimeoutError:
            if limits.cancel_after is not None and limits.seconds == limits.cancel_after:
                record.outcome = CANCELLED
            else:
                record.fail("timeout", f"no end after {limits.timeout:g} s")
        except Exception as error:  # noqa: BLE001 - the kind is the finding
            record.fail(_kind(error, record), f"{type(error).__name__}: {error}")
        reading.close(self._clock())

    async def post(self, path: str, document: dict[str, object]) -> int:
        """Send a JSON document and return the status; 0 where there was no answer."""
        import aiohttp

        assert self._session is not None
        try:
            async with self._session.post(self._url + path, json=document) as response:
                await response.read()
                return response.status
        except (aiohttp.ClientError, OSError):
            return 0  # a server that is gone shows in the requests themselves

    async def _exchange(self, path: str, body: bytes, session_id: str, reading: AnswerReader) -> None:
        assert self._session is not None
        record = reading.record
        headers = {"x-session-id": session_id}
        record.sent = self._clock()
        async with self._session.post(self._url + path, data=body, headers=headers) as response:
            reading.headers(response.status, response.headers)
            if response.status != 200 or not record.stream:
                reading.whole(await response.read())
                return
            async for data in response.content.iter_any():
                reading.feed(data, self._clock())


def _kind(error: Exception, record: RequestRecord) -> str:
    import aiohttp

    if isinstance(error, aiohttp.ClientConnectorError):
        return "refused" if isinstance(error.os_error, ConnectionRefusedError) else "unreachable"
    if record.status:
        return "cut"
    if isinstance(error, aiohttp.ServerDisconnectedError | aiohttp.ClientOSError | ConnectionError):
        return "reset"
    return type(error).__name__
