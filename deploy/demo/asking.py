"""Held-out questions to the running server, over the official `openai` client.

The base is given every help (the labels are listed and vLLM lets it say nothing else); an adapter is
asked plainly, as it was trained, and an answer that is not exactly the label is wrong.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from deploy.demo.baseline import AccuracyScore
from deploy.demo.data import DemoRow, DemoTask

if TYPE_CHECKING:
    from openai import AsyncOpenAI
    from openai.types.chat import ChatCompletionMessageParam

CONCURRENCY = 16
_ANSWER_TOKENS = 12


def connect(url: str) -> AsyncOpenAI:
    """Return the official client without retries: a failure has to show."""
    import openai

    return openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=120)


async def score_adapter(
    client: AsyncOpenAI, model: str, task: DemoTask, tick: Callable[[], None]
) -> AccuracyScore:
    """Ask `model` (an adapter's name) every held-out row of `task`."""
    return await _score(task, tick, lambda row: _answer(client, model, task.messages(row), {}))


async def score_base(
    client: AsyncOpenAI, model: str, task: DemoTask, tick: Callable[[], None]
) -> AccuracyScore:
    """Ask the base model every held-out row of `task`, with the labels listed and nothing else allowed."""
    only = {"structured_outputs": {"choice": list(task.labels)}}
    return await _score(task, tick, lambda row: _answer(client, model, task.helped_messages(row), only))


async def _score(task: DemoTask, tick: Callable[[], None], answer: Callable[[DemoRow], Any]) -> AccuracyScore:
    gate = asyncio.Semaphore(CONCURRENCY)

    async def is_right(row: DemoRow) -> bool:
        async with gate:
            said = await answer(row)
        tick()
        return bool(said == row.label)

    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(is_right(row)) for row in task.held_out]
    return AccuracyScore(sum(task.result() for task in asked), len(asked))


async def _answer(
    client: AsyncOpenAI,
    model: str,
    messages: list[ChatCompletionMessageParam],
    extra: Mapping[str, object],
) -> str:
    said = await client.chat.completions.create(
        model=model,
        messages=messages,
        temperature=0,
        max_tokens=_ANSWER_TOKENS,
        extra_body=extra,
    )
    return (said.choices[0].message.content or "").strip()
