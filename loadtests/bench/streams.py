"""Streaming chat clients for the benchmarks: light on the CPU, which the server shares with them."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import aiohttp


@dataclass(slots=True)
class StreamTiming:
    """What one stream did, in seconds of the monotonic clock: its start and when each piece came."""

    started: float
    arrivals: list[float] = field(default_factory=list)
    model: str = ""
    tokens: int = 0
    pieces: list[bytes] = field(default_factory=list)

    @property
    def first_token_seconds(self) -> float:
        """Return the time from the request to the first piece with content."""
        return self.arrivals[0] - self.started

    @property
    def text(self) -> str:
        """Return the answer; it is parsed when asked for, not while the stream is timed."""
        parsed = (json.loads(piece.removeprefix(b"data: ")) for piece in self.pieces)
        return "".join(chunk["choices"][0]["delta"]["content"] for chunk in parsed)

    def gaps(self, begin: float, end: float) -> list[float]:
        """Return the gaps between pieces that overlap [begin, end], in seconds."""
        pairs = zip(self.arrivals, self.arrivals[1:], strict=False)
        return [after - before for before, after in pairs if after >= begin and before <= end]


async def stream(
    session: aiohttp.ClientSession,
    url: str,
    model: str,
    prompt: str,
    *,
    max_tokens: int,
    headers: Mapping[str, str] | None = None,
) -> StreamTiming:
    """Ask for exactly `max_tokens` tokens, streaming, and return what happened.

    Raises: aiohttp.ClientResponseError: for any status but 200.
    """
    body = {
        "model": model,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": max_tokens,
        "ignore_eos": True,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    done = StreamTiming(time.monotonic())
    async with session.post(f"{url}/v1/chat/completions", json=body, headers=headers) as response:
        response.raise_for_status()
        async for line in response.content:
            if b'"content":"' in line and b'"content":""' not in line:
                done.arrivals.append(time.monotonic())
                done.pieces.append(line)
            elif b'"usage":{' in line:
                last = json.loads(line.removeprefix(b"data: "))
                done.model, done.tokens = last["model"], last["usage"]["completion_tokens"]
    return done


async def batch(
    session: aiohttp.ClientSession,
    url: str,
    models: Sequence[str],
    *,
    max_tokens: int,
    headers: Mapping[str, str] | None = None,
) -> tuple[list[StreamTiming], float]:
    """Run one stream for each entry of `models` at once; return them and the tokens per second of all."""
    started = time.monotonic()
    calls = [
        stream(
            session, url, model, f"Tell me the story number {index}.", max_tokens=max_tokens, headers=headers
        )
        for index, model in enumerate(models)
    ]
    streams = await asyncio.gather(*calls)
    seconds = time.monotonic() - started
    return streams, sum(one.tokens for one in streams) / seconds
