"""Eight clients that stream without pause.

Every answer says three times which version gave it: in our header, in its `model` and in its id.
"""

from __future__ import annotations

import asyncio
import itertools
import re
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import httpx

from deploy.examples.tasks import DemoTask

if TYPE_CHECKING:
    import openai

CLIENTS = 8
_VERSION = re.compile(r"[a-z0-9][a-z0-9._-]*@([1-9][0-9]*)")


@dataclass(frozen=True, slots=True)
class Asked:
    """One request: when it was open, when its first chunk came, the versions that it names, or its error."""

    began: float
    first: float
    ended: float
    versions: tuple[int, ...]
    error: str | None = None


@dataclass
class Crowd:
    """The clients, which ask held-out rows; a context manager that stops them at its end.

    `options` are of every request; each request is a conversation of its own.
    """

    client: openai.AsyncOpenAI
    task: DemoTask
    options: dict[str, Any]
    asked: list[Asked] = field(default_factory=list)
    _running: list[asyncio.Task[None]] = field(default_factory=list)
    _stop: asyncio.Event = field(default_factory=asyncio.Event)
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    async def __aenter__(self) -> Self:
        self._running = [asyncio.create_task(self._ask_on(number)) for number in range(CLIENTS)]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stop.set()
        await asyncio.gather(*self._running)

    async def wait_answers(self, count: int) -> None:
        """Wait until `count` more answers have come."""
        target = len(self.asked) + count
        while len(self.asked) < target:
            self._news.clear()
            await self._news.wait()

    def errors(self) -> list[str]:
        """Return what went wrong, oldest first."""
        return [one.error for one in self.asked if one.error is not None]

    def answered_by(self) -> str:
        """Return how many answers each version gave."""
        found = Counter(version for one in self.asked for version in set(one.versions))
        return ", ".join(f"{self.task.name}@{number}: {count}" for number, count in sorted(found.items()))

    async def _ask_on(self, number: int) -> None:
        for place, row in enumerate(itertools.islice(itertools.cycle(self.task.held_out), number, None)):
            if self._stop.is_set():
                return
            session = f"demo-{time.monotonic_ns()}-{number}-{place}"
            self.asked.append(await self._ask(self.task.messages(row), session))
            self._news.set()

    async def _ask(self, messages: list[Any], session: str) -> Asked:
        import openai

        began = time.monotonic()
        try:
            first, versions = await self._stream(messages, session)
        except (openai.OpenAIError, httpx.HTTPError) as error:
            # A server that is gone answers at once: do not count that a thousand times.
            await asyncio.sleep(0.5)
            return Asked(began, began, time.monotonic(), (), f"{type(error).__name__}: {error}")
        if versions is None:
            return Asked(began, began, time.monotonic(), (), "the stream ended without a finish reason")
        return Asked(began, first, time.monotonic(), versions)

    async def _stream(self, messages: list[Any], session: str) -> tuple[float, tuple[int, ...] | None]:
        names: set[str] = set()
        times: list[float] = []
        finished = False
        async with self.client.chat.completions.with_streaming_response.create(
            model=self.task.name,
            messages=messages,
            temperature=0,
            stream=True,
            extra_headers={"x-session-id": session},
            **self.options,
        ) as response:
            names.add(response.headers.get("x-wardrobe-adapter", "no header"))
            async for chunk in await response.parse():
                times.append(time.monotonic())
                names |= {chunk.model, chunk.id}
                finished = finished or any(choice.finish_reason for choice in chunk.choices)
        return min(times, default=0.0), versions_named(*names) if finished else None


def versions_named(*names: str) -> tuple[int, ...]:
    """Return every version that the names of one answer hold (0 for a name without any), ascending."""
    found = {int(match[1]) if (match := _VERSION.search(name)) else 0 for name in names}
    return tuple(sorted(found))
