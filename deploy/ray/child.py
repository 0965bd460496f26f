"""One replica's process, as its Ray actor sees it: start, ready, ask, stop.

Invariant: the process does not outlive the actor (parent_death.py), and sees none of Ray's variables: vLLM
has its own opinion of a machine on which it finds Ray.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass

import aiohttp
from yarl import URL

from deploy.ray import parent_death

_LISTENING = re.compile(r"listening on (http://[^\s\"]+)")
_POLL_SECONDS = 0.2
_HOP_BY_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "upgrade", "te", "trailer"})
# Ray's proxy writes these itself; the request id that it writes is the one that we were given.
_RAYS_OWN = frozenset({"date", "server", "x-request-id"})

_log = logging.getLogger("ray.serve")


class ChildEnded(Exception):
    """The process ended by itself; the message holds its exit code and last words."""


@dataclass(frozen=True, slots=True)
class RawRequest:
    """A request as it came: the raw path with the query, and the client's headers."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes


@dataclass(frozen=True, slots=True)
class Accepted:
    """The first word of every replica that is asked: from now on the answer may take its time."""


@dataclass(frozen=True, slots=True)
class Head:
    """The beginning of an answer."""

    status: int
    headers: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Unavailable:
    """Given instead of a head: nothing was answered, so another replica may be asked."""

    reason: str


class ReplicaProcess:
    """A running replica; `stop` ends it."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._lines: list[str] = []
        self._process = subprocess.Popen(
            # By its file: Ray's environment need not hold our packages, and may find others of their names.
            [sys.executable, "-P", parent_death.__file__, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**without_ray(os.environ), "PYTHONSAFEPATH": "1", **environment},
        )
        threading.Thread(target=self._read, daemon=True).start()
        self._session: aiohttp.ClientSession | None = None

    @property
    def url(self) -> str:
        """Return its address, empty until it listens."""
        return next((found[1] for line in self._lines[:50] if (found := _LISTENING.search(line))), "")

    async def wait_ready(self, seconds: float) -> None:
        """Return when it takes requests.

        Raises: ChildEnded; TimeoutError.
        """
        end = time.monotonic() + seconds
        while not await self.ready():
            if time.monotonic() > end:
                raise TimeoutError(f"the replica is not ready after {seconds:g} s: {self._last_words()}")
            await asyncio.sleep(_POLL_SECONDS)

    async def ready(self) -> bool:
        """Ask /readyz.

        Raises: ChildEnded.
        """
        if self._process.poll() is not None:
            raise ChildEnded(f"exit code {self._process.returncode}: {self._last_words()}")
        if not self.url:
            return False
        try:
            async with self._client().get(f"{self.url}/readyz", timeout=aiohttp.ClientTimeout(5)) as answer:
                return answer.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False

    async def ask(self, request: RawRequest) -> AsyncIterator[Head | Unavailable | bytes]:
        """Yield the head of the answer and its body as it comes, or that there is none.

        Raises: aiohttp.ClientError: when the answer breaks off.
        """
        try:
            answer = await self._client().request(
                request.method,
                # The path goes on as the client spelled it; the router denies what it does not know.
                URL(self.url + request.target, encoded=True),
                headers=[pair for pair in request.headers if pair[0].lower() not in _HOP_BY_HOP],
                data=request.body or None,
                allow_redirects=False,
            )
        except (aiohttp.ClientError, OSError) as error:
            yield Unavailable(f"no answer: {error or type(error).__name__}")
            return
        async with answer:
            if answer.status == 503:
                told = (await answer.read()).decode(errors="replace")
                # What the launcher or a draining router says; a full engine is an answer of its own.
                if '"engine_' in told or "drain" in told or "not ready" in told:
                    yield Unavailable(told[:200])
                    return
                yield Head(answer.status, _headers(answer))
                yield told.encode()
                return
            yield Head(answer.status, _headers(answer))
            async for chunk in answer.content.iter_any():
                yield chunk

    def stop(self, seconds: float) -> None:
        """Let it finish what it has, for up to `seconds`, and end it."""
        self._process.terminate()
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            _log.warning("the replica did not end within %g s; it is killed", seconds)
            self._process.kill()
            self._process.wait()

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            # No limits of ours: the router has its own, and vLLM its queue.
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=5),
                auto_decompress=False,
                skip_auto_headers=("user-agent", "accept", "accept-encoding", "content-type"),
            )
        return self._session

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.append(line.rstrip())
            _log.info("%s", line.rstrip())

    def _last_words(self) -> str:
        return " | ".join(self._lines[-3:]) or "it said nothing"


def without_ray(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without what is Ray's own."""
    return {name: value for name, value in environment.items() if not name.startswith("RAY_")}


def _headers(answer: aiohttp.ClientResponse) -> tuple[tuple[str, str], ...]:
    dropped = _HOP_BY_HOP | _RAYS_OWN
    return tuple((name, value) for name, value in answer.headers.items() if name.lower() not in dropped)
