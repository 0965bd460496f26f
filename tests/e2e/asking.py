"""How the end-to-end tests ask a server, and how they tell by the text alone which adapter answered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import httpx
import openai

from loadtests.markers import MARKERS, marker_of

ALPHA, BRAVO = MARKERS["alpha"], MARKERS["bravo"]


@dataclass(frozen=True)
class Answer:
    """One streamed answer: its text, the model that it names, its id, and how it ended."""

    text: str
    model: str
    response_id: str
    finish_reason: str | None
    headers: Mapping[str, str]

    @property
    def marker(self) -> str:
        """Return which adapter's text this is."""
        return marker_of(self.text)


def ask(client: openai.OpenAI, model: str, question: str = "Hello there!", *, max_tokens: int = 16) -> Answer:
    """Ask once, streaming, greedily, and return the whole answer."""
    with client.chat.completions.with_streaming_response.create(
        model=model,
        messages=[{"role": "user", "content": question}],
        max_tokens=max_tokens,
        temperature=0,
        stream=True,
    ) as response:
        parts, finish, name, response_id = [], None, "", ""
        for chunk in response.parse():
            name, response_id = chunk.model, chunk.id
            for choice in chunk.choices:
                parts.append(choice.delta.content or "")
                finish = choice.finish_reason or finish
        return Answer("".join(parts), name, response_id, finish, response.headers)


def metric(url: str, name: str, **labels: str) -> float:
    """Return the sum of the samples called `name` whose labels hold `labels`."""
    total = 0.0
    for line in httpx.get(f"{url}/metrics", timeout=30).text.splitlines():
        wanted = all(f'{key}="{value}"' in line for key, value in labels.items())
        if wanted and line.startswith(name) and line[len(name)] in "{ ":
            total += float(line.rpartition(" ")[2])
    return total
