"""More adapters than the engine holds: everybody is answered by the right one, and memory stays bounded."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import openai
from openai.types.chat import ChatCompletionMessageParam

from loadtests.live import Live, wardrobe, wardrobe_json
from loadtests.markers import marker_of
from tests.e2e.asking import ALPHA, BRAVO, metric

HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Hello there!"}]
ADAPTERS = 12  # The session's server holds six.


async def ask_all(url: str, names: list[str], *, at_once: int) -> list[str]:
    gate = asyncio.Semaphore(at_once)
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=300) as client:

        async def one(name: str) -> str:
            async with gate:
                answer = await client.chat.completions.create(
                    model=name, messages=HELLO, max_tokens=10, temperature=0
                )
                return marker_of(answer.choices[0].message.content or "")

        return await asyncio.gather(*(one(name) for name in names))


def test_twice_as_many_adapters_as_fit_are_all_answered_rightly(live: Live, markers: dict[str, Path]) -> None:
    names = [f"tenant-{index:02d}" for index in range(ADAPTERS)]
    for index, name in enumerate(names):
        wardrobe(live.root, "register", name, markers["alpha" if index % 2 == 0 else "bravo"])
    time.sleep(1)
    evicted = metric(live.url, "wardrobe_adapter_evictions_total")
    expected = [ALPHA if index % 2 == 0 else BRAVO for index in range(ADAPTERS)] * 3
    assert asyncio.run(ask_all(live.url, names * 3, at_once=16)) == expected
    assert metric(live.url, "wardrobe_adapter_evictions_total") > evicted
    replicas = wardrobe_json(live.root, "status")["replicas"]
    assert [len(entry["resident"]) <= 6 for entry in replicas if entry["live"]] == [True]
