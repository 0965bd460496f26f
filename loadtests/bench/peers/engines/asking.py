"""Requests of the engines' comparison: asked streaming, timed, and never raised when they fail.

A failure is a figure here, not an end: every status but 200, an error event inside a 200, and a
connection that broke (status 0) are kept beside the answers.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import aiohttp

BROKEN = 0
"""The status of a request whose connection broke."""

TIMEOUT = aiohttp.ClientTimeout(total=180)


@dataclass(slots=True)
class Reply:
    """One request: its clock times in seconds, when each piece of text came, and who answered.

    `version` and `retry_after` are what the server's headers say, empty where they say nothing.
    """

    model: str
    began: float
    ended: float = 0.0
    status: int = BROKEN
    tokens: int = 0
    version: str = ""
    retry_after: str = ""
    arrivals: list[float] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Return whether it was answered to the end."""
        return self.status == 200 and self.tokens > 0

    @property
    def first_token_seconds(self) -> float:
        """Return the time to the first piece of text, or to the end where no piece had any."""
        return (self.arrivals[0] if self.arrivals else self.ended) - self.began

    @property
    def token_seconds(self) -> float:
        """Return the time per token after the first; n is the server's count, never that of chunks."""
        return (self.ended - self.began - self.first_token_seconds) / max(self.tokens - 1, 1)

    def gaps(self, begin: float, end: float) -> list[float]:
        """Return the gaps between pieces that overlap [begin, end], in seconds."""
        pairs = zip(self.arrivals, self.arrivals[1:], strict=False)
        return [after - before for before, after in pairs if after >= begin and before <= end]

    def read(self, line: bytes, now: float) -> None:
        """Take in one line of the stream that came at `now`."""
        if not line.startswith(b"data: {"):
            return
        event = json.loads(line[6:])
        if "error" in event:
            self.status = 500
        elif usage := event.get("usage"):
            self.tokens = int(usage["completion_tokens"])
        elif any(_text(choice) for choice in event["choices"]):
            self.arrivals.append(now)


@dataclass(frozen=True, slots=True)
class BenchQuestion:
    """What is asked; `chat` renders it with the model's template."""

    model: str
    prompt: str
    max_tokens: int
    chat: bool = True

    @property
    def path(self) -> str:
        """Return the route."""
        return "/v1/chat/completions" if self.chat else "/v1/completions"

    def body(self) -> dict[str, object]:
        """Return the request's body: greedy, exactly `max_tokens` tokens, streamed."""
        asked: dict[str, object] = {"prompt": self.prompt}
        if self.chat:
            asked = {"messages": [{"role": "user", "content": self.prompt}]}
        return {
            **asked,
            "model": self.model,
            "max_tokens": self.max_tokens,
            "ignore_eos": True,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }


@dataclass(frozen=True, slots=True)
class BenchRun:
    """Requests that were run together, and how long all of them took."""

    replies: Sequence[Reply]
    seconds: float

    @property
    def tokens_per_second(self) -> float:
        """Return the answered tokens of all over the time of all."""
        return sum(reply.tokens for reply in self.replies if reply.ok) / self.seconds

    @property
    def answered(self) -> list[Reply]:
        """Return the replies that came to their end."""
        return [reply for reply in self.replies if reply.ok]

    @property
    def failed(self) -> int:
        """Return how many did not."""
        return len(self.replies) - len(self.answered)


async def ask(
    session: aiohttp.ClientSession, url: str, question: BenchQuestion, reply: Reply | None = None
) -> Reply:
    """Ask, read to the end, and return what happened; a `reply` that is given is filled in meanwhile."""
    reply = reply or Reply(question.model, time.monotonic())
    try:
        async with session.post(url + question.path, json=question.body(), timeout=TIMEOUT) as response:
            reply.status = response.status
            reply.version = response.headers.get("x-wardrobe-adapter", "")
            reply.retry_after = response.headers.get("retry-after", "")
            async for line in response.content:
                reply.read(line, time.monotonic())
    except (aiohttp.ClientError, TimeoutError):
        reply.status = BROKEN
    reply.ended = time.monotonic()
    return reply


async def crowd(
    session: aiohttp.ClientSession, url: str, questions: Iterable[BenchQuestion], *, streams: int
) -> BenchRun:
    """Ask all questions in their order, `streams` at a time: who is done takes the next."""
    waiting = deque(questions)
    replies: list[Reply] = []

    async def client() -> None:
        while waiting:
            replies.append(await ask(session, url, waiting.popleft()))

    began = time.monotonic()
    await asyncio.gather(*(client() for _ in range(streams)))
    return BenchRun(replies, time.monotonic() - began)


@dataclass(slots=True)
class Steady:
    """Requests that leave at a fixed pace whatever becomes of them, between `start` and `stop`."""

    session: aiohttp.ClientSession
    url: str
    question: BenchQuestion
    interval_seconds: float
    replies: list[Reply] = field(default_factory=list)
    _open: set[asyncio.Task[None]] = field(default_factory=set)
    _pace: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Begin to ask."""
        self._pace = asyncio.create_task(self._keep_asking())
        return self

    async def __aexit__(self, *_error: object) -> None:
        """Ask no more, and wait for what is open."""
        assert self._pace is not None
        self._pace.cancel()
        await asyncio.gather(self._pace, *self._open, return_exceptions=True)

    async def _keep_asking(self) -> None:
        due = time.monotonic()
        while True:
            task = asyncio.create_task(self._ask())
            self._open.add(task)
            task.add_done_callback(self._open.discard)
            due += self.interval_seconds
            await asyncio.sleep(max(0.0, due - time.monotonic()))

    async def _ask(self) -> None:
        self.replies.append(await ask(self.session, self.url, self.question))


def _text(choice: Mapping[str, Any]) -> str:
    return str(choice.get("text") or choice.get("delta", {}).get("content") or "")
