"""The plan of a run: every request with its time, adapter, lengths and fate, decided before the first.

Each aspect has random numbers of its own, so that changing one (say the popularity) leaves the others as
they were. Texts are made only when their turn comes: a plan of a million requests takes some 50 MB.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadtests.runner import prompts
from loadtests.runner.arrivals import Recorded, draw_times, read_trace
from loadtests.runner.prompts import Message
from loadtests.runner.scenario import Popularity, Scenario


@dataclass(frozen=True, slots=True)
class Planned:
    """One arrival: `at` seconds from the begin; `cancel_after` is None for one that stays."""

    index: int
    at: float
    model: str
    messages: Sequence[Message]
    max_tokens: int
    stream: bool
    cancel_after: float | None


class ArrivalPlan:
    """The arrivals of a scenario, in order; iterate as often as you like."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        rngs = [np.random.default_rng(seed) for seed in np.random.SeedSequence(scenario.seed).spawn(6)]
        self._trace: list[Recorded] = []
        if scenario.arrival.trace is not None:
            path = Path(scenario.arrival.trace)
            self._trace = read_trace(path, scenario.total_seconds, scenario.arrival.speed)
            self.times = np.array([one.at for one in self._trace])
        else:
            self.times = draw_times(scenario.arrival, scenario.total_seconds, rngs[0])
        count = len(self.times)
        self._file = prompts.read_prompts(Path(scenario.prompts.file)) if scenario.prompts.file else []
        models = scenario.adapters.models
        self.models = choose(scenario.adapters.popularity, len(models), count, rngs[1])
        self._lengths = prompts.draw_lengths(scenario.prompts.tokens, count, rngs[2])
        self._answers = prompts.draw_lengths(scenario.max_tokens, count, rngs[3])
        self._streams = rngs[4].random(count) < scenario.stream_ratio
        self._leaves = rngs[5].random(count) < scenario.cancel.ratio
        self._patience = rngs[5].uniform(*scenario.cancel.after_seconds, count)

    def __len__(self) -> int:
        return len(self.times)

    def __iter__(self) -> Iterator[Planned]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> Planned:
        """Return one arrival with its text."""
        recorded = self._trace[index] if self._trace else None
        known = recorded.model if recorded is not None else None
        model = known or self.scenario.adapters.models[self.models[index]]
        answer = int(self._answers[index])
        if recorded is not None and recorded.max_tokens is not None:
            answer = recorded.max_tokens
        return Planned(
            index=index,
            at=float(self.times[index]),
            model=model,
            messages=self._messages(index, model, recorded),
            max_tokens=answer,
            stream=bool(self._streams[index]),
            cancel_after=float(self._patience[index]) if self._leaves[index] else None,
        )

    def next_question(self, planned: Planned, turn: int) -> Message:
        """Return the question of a conversation's later turn."""
        seed = f"{self.scenario.seed}|{planned.index}|{turn}"
        return {"role": "user", "content": prompts.words(seed, int(self._lengths[planned.index]))}

    def _messages(self, index: int, model: str, recorded: Recorded | None) -> Sequence[Message]:
        seed = f"{self.scenario.seed}|{index}"
        if self._file:
            return self._file[index % len(self._file)]
        tokens = int(self._lengths[index])
        if recorded is not None and recorded.prompt_tokens is not None:
            tokens = recorded.prompt_tokens
            if recorded.blocks:
                return prompts.recorded_conversation(seed, tokens, recorded.blocks)
        shared = self.scenario.prompts.shared_prefix
        return prompts.conversation(seed, f"{self.scenario.seed}|{model}", tokens, shared)


def choose(popularity: Popularity, names: int, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return whom each of `count` arrivals asks, as indices 0 … names - 1."""
    if popularity.distinct:
        return np.arange(count, dtype=np.int64) % names
    return rng.choice(names, size=count, p=shares(popularity, names)).astype(np.int64)


def shares(popularity: Popularity, names: int) -> NDArray[np.float64]:
    """Return the expected share of each name."""
    raw = np.ones(names)
    if popularity.weights is not None:
        raw = np.array(popularity.weights, dtype=float)
    elif popularity.zipf is not None:
        raw = np.arange(1, names + 1, dtype=float) ** -popularity.zipf
    return np.asarray(raw / raw.sum())


def request_body(scenario: Scenario, planned: Planned, messages: Sequence[Message]) -> bytes:
    """Return the JSON body of a request."""
    body: dict[str, Any] = {"model": planned.model}
    if scenario.api == "chat":
        body["messages"] = list(messages)
    else:
        body["prompt"] = "\n".join(message["content"] for message in messages)
    body |= {"max_tokens": planned.max_tokens, "temperature": 0, "stream": planned.stream}
    if planned.stream:
        body["stream_options"] = {"include_usage": True}
    if scenario.ignore_eos:
        body["ignore_eos"] = True
    return json.dumps({**body, **scenario.extra_body}, separators=(",", ":")).encode()


def request_path(scenario: Scenario) -> str:
    """Return the route that a scenario asks."""
    return "/v1/chat/completions" if scenario.api == "chat" else "/v1/completions"
