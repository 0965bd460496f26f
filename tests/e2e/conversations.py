"""Conversations with a served adapter, each of its own: what a rollout randomises, counts and compares.

Clients talk without pause (closed loop), over streams; every answer is kept with who gave it, and rated
where the drill wants it. An answer is right when its text holds the marker of the version that it names.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp

Rate = Callable[[str], float | None]
"""Scores an answer (0 … 1) by its text; None gives no feedback."""


@dataclass(frozen=True, slots=True)
class Said:
    """One request: when it began (monotonic seconds), who answered, as which arm, and what went wrong."""

    began: float
    ended: float
    model: str
    arm: str
    text: str
    error: str = ""


@dataclass(slots=True)
class Conversations:
    """`clients` talk to `model` until `stop` is set, for `turns` a conversation, after a `system` prompt."""

    url: str
    model: str
    clients: int = 8
    turns: int = 1
    max_tokens: int = 4
    system: str = ""
    rate: Rate | None = None
    said: list[Said] = field(default_factory=list)
    rated: int = 0
    down: bool = False
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    async def run(self) -> None:
        """Talk to the end."""
        connector = aiohttp.TCPConnector(limit=0)
        timeout = aiohttp.ClientTimeout(total=120)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            await asyncio.gather(*(self._client(session) for _ in range(self.clients)))

    def failures(self) -> Counter[str]:
        """Return what went wrong, by kind."""
        return Counter(one.error for one in self.said if one.error)

    def models(self) -> Counter[str]:
        """Return how many answers each version gave."""
        return Counter(one.model for one in self.said if not one.error)

    async def _client(self, session: aiohttp.ClientSession) -> None:
        while not self.stop.is_set():
            messages: list[dict[str, str]] = [{"role": "system", "content": self.system}] * bool(self.system)
            for turn in range(self.turns):
                question = f"Question {next(self._numbers)}, part {turn}: who are you?"
                messages.append({"role": "user", "content": question})
                said = await self._ask(session, messages)
                if said is None:
                    break
                messages.append({"role": "assistant", "content": said.text})

    async def _ask(self, session: aiohttp.ClientSession, messages: list[dict[str, str]]) -> Said | None:
        began, down = time.monotonic(), self.down
        try:
            said, response_id = await self._stream(session, messages, began)
            if self.rate is not None and (score := self.rate(said.text)) is not None:
                await self._give(session, response_id, score)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            if not (down or self.down):
                kind = f"{type(error).__name__} {getattr(error, 'status', '')}".strip()
                self.said.append(Said(began, time.monotonic(), "", "", str(error)[:200], kind))
            await asyncio.sleep(0.5)
            return None
        if not said.error or not (down or self.down):
            self.said.append(said)
        return said

    async def _stream(
        self, session: aiohttp.ClientSession, messages: list[dict[str, str]], began: float
    ) -> tuple[Said, str]:
        body = {
            "model": self.model,
            "messages": messages,
            "max_tokens": self.max_tokens,
            "temperature": 0,
            "stream": True,
        }
        pieces: list[dict[str, Any]] = []
        closed = False
        async with session.post(f"{self.url}/v1/chat/completions", json=body) as response:
            if response.status != 200:
                raise aiohttp.ClientResponseError(
                    response.request_info, (), status=response.status, message=await response.text()
                )
            arm = response.headers.get("x-wardrobe-arm", "")
            async for line in response.content:
                if line.startswith(b"data: {"):
                    pieces.append(json.loads(line.removeprefix(b"data: ")))
                closed = closed or line.startswith(b"data: [DONE]")
        broken = next((str(piece["error"]) for piece in pieces if "error" in piece), "")
        error = "error event" if broken else "" if closed else "cut stream"
        choices = [piece["choices"][0] for piece in pieces if piece.get("choices")]
        text = broken or "".join(choice["delta"].get("content") or "" for choice in choices)
        first = pieces[0] if pieces else {}
        said = Said(began, time.monotonic(), str(first.get("model", "")), arm, text, error)
        return said, str(first.get("id", ""))

    async def _give(self, session: aiohttp.ClientSession, response_id: str, score: float) -> None:
        body = {"response_id": response_id, "score": score}
        async with session.post(f"{self.url}/v1/feedback", json=body) as response:
            response.raise_for_status()
            self.rated += 1
