"""Eight clients stream without pause while versions are registered, promoted and rolled back.

Every answer says three times which version gave it: in our header, in its `model` and in its id. Owns the
record of all requests and the verdict over them. Invariant of the verdict: a request that failed, whose
three names disagree, or that was answered by a version that could not have been `stable` while it was
open, is counted, never dropped.
"""

from __future__ import annotations

import asyncio
import itertools
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

import httpx

from deploy.demo.data import DemoTask

if TYPE_CHECKING:
    import openai
    from openai.types.chat import ChatCompletionMessageParam

CLIENTS = 8
ANSWER_TOKENS = 24
# An alias move reaches a running server within this time (seconds).
VISIBLE_SECONDS = 1.0
_VERSION = re.compile(r"[a-z0-9][a-z0-9._-]*@([1-9][0-9]*)")


@dataclass(frozen=True, slots=True)
class Asked:
    """One request: when it was open, when its first chunk came, the versions that it names, or its error."""

    began: float
    first: float
    ended: float
    versions: tuple[int, ...]
    error: str | None = None


@dataclass(frozen=True, slots=True)
class StableMove:
    """One command that moved `stable`: to which version, from when until when it ran."""

    version: int
    began: float
    ended: float


@dataclass(frozen=True, slots=True)
class SwapVerdict:
    """What the record shows; `spanning` answers were open while a move happened.

    `seconds` is the time from each move's command (its start included) to the first chunk by the new version.
    """

    requests: int
    failures: int
    wrong_versions: int
    by_version: dict[int, int]
    spanning: int
    seconds: tuple[float, ...]
    first_error: str | None

    @property
    def clean(self) -> bool:
        """Return True when nothing failed, nothing was wrong, and every version really answered."""
        return self.requests > 0 and self.failures == 0 and self.wrong_versions == 0


def judge(asked: Sequence[Asked], moves: Sequence[StableMove]) -> SwapVerdict:
    """Return the verdict; `moves` begins with the version that was stable from the start."""
    right = [one for one in asked if one.error is None]
    by_version: dict[int, int] = {}
    for one in right:
        for version in set(one.versions):
            by_version[version] = by_version.get(version, 0) + 1
    errors = [one.error for one in asked if one.error is not None]
    return SwapVerdict(
        requests=len(asked),
        failures=len(errors),
        wrong_versions=sum(not _is_possible(one, moves) for one in right),
        by_version=dict(sorted(by_version.items())),
        spanning=sum(any(one.began < move.began < one.ended for move in moves) for one in right),
        seconds=tuple(_first_chunk(right, move) for move in moves[1:]),
        first_error=errors[0] if errors else None,
    )


@dataclass
class Crowd:
    """The eight clients; a context manager that stops them at its end."""

    client: openai.AsyncOpenAI
    task: DemoTask
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

    async def _ask_on(self, number: int) -> None:
        for row in itertools.islice(itertools.cycle(self.task.held_out), number, None):
            if self._stop.is_set():
                return
            self.asked.append(await self._ask(self.task.messages(row)))
            self._news.set()

    async def _ask(self, messages: list[ChatCompletionMessageParam]) -> Asked:
        import openai

        began = time.monotonic()
        try:
            first, versions = await self._stream(messages)
        except (openai.OpenAIError, httpx.HTTPError) as error:
            await asyncio.sleep(
                0.5
            )  # a server that is gone answers at once: do not count that a thousand times
            return Asked(began, began, time.monotonic(), (), f"{type(error).__name__}: {error}")
        if versions is None:
            return Asked(began, began, time.monotonic(), (), "the stream ended without a finish reason")
        return Asked(began, first, time.monotonic(), versions)

    async def _stream(
        self, messages: list[ChatCompletionMessageParam]
    ) -> tuple[float, tuple[int, ...] | None]:
        from openai import AsyncStream

        names: set[str] = set()
        times: list[float] = []
        finished = False
        async with self.client.chat.completions.with_streaming_response.create(
            model=self.task.name,
            messages=messages,
            temperature=0,
            max_tokens=ANSWER_TOKENS,
            stream=True,
            # Longer than a label, so that answers are open while a version is swapped.
            extra_body={"ignore_eos": True},
        ) as response:
            header = response.headers.get("x-wardrobe-adapter", "no header")
            stream = await response.parse()
            assert isinstance(stream, AsyncStream)
            async for chunk in stream:
                times.append(time.monotonic())
                names |= {chunk.model, chunk.id}
                finished = finished or any(choice.finish_reason for choice in chunk.choices)
        return min(times, default=0.0), versions_named(header, *names) if finished else None


def versions_named(*names: str) -> tuple[int, ...]:
    """Return every version that the names of one answer hold (0 for a name without any), ascending."""
    found = {int(match[1]) if (match := _VERSION.search(name)) else 0 for name in names}
    return tuple(sorted(found))


def _is_possible(one: Asked, moves: Sequence[StableMove]) -> bool:
    if len(one.versions) != 1:
        return False
    for place, move in enumerate(moves):
        later = moves[place + 1 :]
        until = later[0].ended + VISIBLE_SECONDS if later else float("inf")
        if move.version == one.versions[0] and one.ended >= move.began and one.began <= until:
            return True
    return False


def _first_chunk(right: Sequence[Asked], move: StableMove) -> float:
    times = [one.first for one in right if one.first >= move.began and one.versions == (move.version,)]
    return min(times, default=float("nan")) - move.began
