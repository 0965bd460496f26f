"""Two groups on one real vLLM: what a flood of one costs the other, and what drowning costs everybody.

    python -P -m loadtests.bench.groups [--base DIR] [--seconds 40] [--pairs 2] [--only fairness|overload]

Fairness: one group keeps many prompts of 900 tokens in flight; the other one asks now and then, short
questions in one part and prompts of 900 tokens in the next, at the same random times with the flood and
without it. What is left to the flood is what it gets alone, less what the other group was given, in tokens.
Overload: 200 long requests at once, while the health endpoints are asked from another process. Writes its
results to bench-results, and ends with 1 when a bar is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import re
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import aiohttp
import numpy as np

from loadtests.bench.peers.engines.asking import BenchQuestion, Reply, ask
from loadtests.bench.peers.engines.ledger import Statistic, interval, ratio
from loadtests.bench.probes import PATHS
from loadtests.bench.results import MeasuredFigure, MedianInterval, at_least, at_most, publish
from loadtests.live import Live, wardrobe, wardrobe_json
from registry.entries.groups import GroupStore
from registry.entries.keys import KeyStore
from registry.entries.rights import Group, Scope

LONG = 900
SHORT = 24
FLOOD_STREAMS = 32
LIGHT_TOKENS, FLOOD_TOKENS = 16, 32
RATES = {SHORT: 1.5, LONG: 0.4}
"""Requests a second of the light group, by the tokens of its prompts: a tenth and a third of the machine."""
SEATS = 16
OPTIONS = ("--max-model-len", "1024", "--max-num-seqs", str(SEATS), "--kv-cache-memory-bytes", str(2**29))
TAIL_RATIO, KEPT = 1.3, 0.95
AT_ONCE = 200
HEALTH_MILLISECONDS = 100.0
RAMP_SECONDS = 4.0
_WORDS = (
    "the",
    "of",
    "and",
    "to",
    "in",
    "is",
    "that",
    "for",
    "it",
    "as",
    "was",
    "with",
    "be",
    "by",
    "on",
    "not",
)
_IN_FLIGHT = re.compile(
    r"^(vllm:num_requests_(?:running|waiting)|wardrobe_inference_inflight)(?:\{[^}]*\})? (\S+)", re.MULTILINE
)


def prompt(tokens: int, seed: object) -> str:
    """Return a prompt of about `tokens` tokens that shares no beginning with that of another seed."""
    drawn = random.Random(str(seed))
    return " ".join([str(drawn.randrange(10**6)), *drawn.choices(_WORDS, k=max(1, tokens - 8))])


@dataclass(slots=True)
class Flood:
    """One group that keeps `FLOOD_STREAMS` long requests in flight while it is entered."""

    session: aiohttp.ClientSession
    url: str
    model: str
    seed: object
    replies: list[Reply] = field(default_factory=list)
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    async def __aenter__(self) -> Self:
        """Begin to ask."""
        self._tasks = [asyncio.create_task(self._client(place)) for place in range(FLOOD_STREAMS)]
        await asyncio.sleep(RAMP_SECONDS)
        return self

    async def __aexit__(self, *_error: object) -> None:
        """Leave, all at once."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(RAMP_SECONDS)  # what the engine was given comes out of it again

    async def _client(self, place: int) -> None:
        turn = 0
        while True:
            turn += 1
            text = prompt(LONG, (self.seed, place, turn))
            self.replies.append(Reply(self.model, time.monotonic()))
            question = BenchQuestion(self.model, text, FLOOD_TOKENS)
            last = await ask(self.session, self.url, question, self.replies[-1])
            if not last.ok:
                await asyncio.sleep(float(last.retry_after or 0.2))


def served(replies: Sequence[Reply], tokens: int, began: float, ended: float) -> float:
    """Return the tokens per second that were given between two moments: prompts with their first token."""
    count = 0
    for one in replies:
        inside = sum(began <= moment < ended for moment in one.arrivals)
        count += inside + (tokens if one.arrivals and began <= one.arrivals[0] < ended else 0)
    return count / (ended - began)


@dataclass(frozen=True, slots=True)
class GroupsBench:
    """A running server, and a session for each group."""

    url: str
    model: str
    light: aiohttp.ClientSession
    flood: aiohttp.ClientSession
    seconds: float
    pairs: int
    prompts: Sequence[int]

    async def asking(self, tokens: int, turn: int) -> list[Reply]:
        """Ask as the light group at random times for `seconds`; the same times for the same turn."""
        rate = RATES[tokens]
        gaps = np.random.default_rng((7, turn)).exponential(1 / rate, int(rate * self.seconds))
        began = time.monotonic()

        async def later(due: float, number: int) -> Reply:
            await asyncio.sleep(max(0.0, began + due - time.monotonic()))
            text = prompt(tokens, ("light", began, number))
            question = BenchQuestion(self.model, text, LIGHT_TOKENS)
            return await ask(self.light, self.url, question, Reply(self.model, time.monotonic()))

        return await asyncio.gather(*map(later, np.cumsum(gaps), range(len(gaps))))

    async def alone(self, turn: int) -> float:
        """Return the tokens per second of the flood with the server for itself."""
        async with Flood(self.flood, self.url, self.model, ("alone", turn)) as flood:
            began = time.monotonic()
            await asyncio.sleep(self.seconds)
            return served(flood.replies, LONG, began, time.monotonic())

    async def beside(self, tokens: int, turn: int) -> tuple[list[Reply], float, float]:
        """Return the light group's answers beside the flood, and the tokens per second of each."""
        async with Flood(self.flood, self.url, self.model, ("beside", tokens, turn)) as flood:
            began = time.monotonic()
            replies = await self.asking(tokens, turn)
            ended = time.monotonic()
            given = served(flood.replies, LONG, began, ended)
        return replies, given, served(replies, tokens, began, ended)


async def fairness(bench: GroupsBench) -> list[MeasuredFigure]:
    """Compare the light group beside the flood with it alone, and the flood with what is left."""
    await bench.asking(SHORT, 99)
    alone = [await bench.alone(0)]
    figures, lost = [], 0
    for tokens in bench.prompts:
        first: dict[bool, list[float]] = {True: [], False: []}
        kept: list[float] = []
        for turn in range(bench.pairs):
            quiet = await bench.asking(tokens, turn)
            crowded, given, taken = await bench.beside(tokens, turn)
            kept.append(given / (alone[-1] - taken))
            print(
                f"  light {tokens}: flood {given:.0f}, light {taken:.0f}, alone {alone[-1]:.0f}", flush=True
            )
            for beside, replies in ((False, quiet), (True, crowded)):
                first[beside] += [1000 * one.first_token_seconds for one in replies if one.ok]
                lost += sum(not one.ok for one in replies)
        for beside, found in first.items():
            print(f"  light {tokens} beside={beside}: {sorted(map(round, found))}", flush=True)
        figures += _tail(tokens, first, kept)
    alone.append(await bench.alone(1))
    return [
        *figures,
        _plain("flood alone", _spread(alone), "tokens/s"),
        at_most("requests of the light group that failed", _exact(lost), 0, "requests"),
    ]


def _tail(tokens: int, first: dict[bool, list[float]], kept: list[float]) -> list[MeasuredFigure]:
    who = f"light group, prompts of {tokens} tokens"
    return [
        at_most(f"{who}: p99 to the first token, beside the flood / alone",
                ratio(first[True], first[False], Statistic.P99), TAIL_RATIO, "ratio"),
        *(_plain(f"{who}: {statistic.value}, {'beside the flood' if beside else 'alone'}",
                 interval(first[beside], statistic), "ms")
          for statistic in (Statistic.MEDIAN, Statistic.P99) for beside in (False, True)),
        at_least(f"{who}: the flood keeps of what is left", _spread(kept), KEPT),
    ]  # fmt: skip


async def overload(bench: GroupsBench, key: str) -> list[MeasuredFigure]:
    """Ask 200 long requests at once while the health endpoints are asked, and see what is left behind."""
    arguments = ("-P", "-m", "loadtests.bench.probes", bench.url, key)
    seconds = 45.0
    probes = await asyncio.create_subprocess_exec(
        sys.executable, *arguments, str(seconds + 5), stdout=asyncio.subprocess.PIPE
    )
    await asyncio.sleep(2.0)
    questions = [BenchQuestion(bench.model, prompt(LONG, ("drown", n)), 64) for n in range(AT_ONCE)]
    replies = [Reply(bench.model, time.monotonic()) for _ in questions]
    asked = [
        asyncio.create_task(ask(bench.flood, bench.url, one, reply))
        for one, reply in zip(questions, replies, strict=True)
    ]
    await asyncio.wait(asked, timeout=seconds)
    leaving = [task for task in asked if not task.done()]
    for task in leaving:
        task.cancel()
    await asyncio.gather(*asked, return_exceptions=True)
    output, _ = await probes.communicate()
    await asyncio.sleep(3.0)
    async with bench.light.get(f"{bench.url}/metrics") as response:
        left = sum(float(value) for _, value in _IN_FLIGHT.findall(await response.text()))
    ended = [one for one in replies if one.ended]
    counts = Counter(one.status for one in ended)
    wrong = [one for one in ended if not _as_it_should(one)]
    print(f"  {dict(counts)}, {len(leaving)} left before their answer", flush=True)
    figures = [
        at_most(f"{path} under {AT_ONCE} long requests: slowest answer", _largest(found),
                HEALTH_MILLISECONDS, "ms, in brackets median and p99")
        for path, found in json.loads(output).items()
    ]  # fmt: skip
    return [
        *figures,
        at_most("answers but 200, and 429 and 503 with retry-after", _exact(len(wrong)), 0, "requests"),
        _plain(f"answered of {AT_ONCE} in {seconds:g} s", _exact(counts[200]), "requests"),
        _plain("refused", _exact(counts[503] + counts[429]), "requests"),
        at_most("in flight afterwards", _exact(left), 0, "requests"),
    ]


def _as_it_should(reply: Reply) -> bool:
    return reply.ok or (reply.status in {429, 503} and reply.retry_after.isdigit())


def _largest(found: Sequence[float]) -> MedianInterval:
    assert found, f"nothing was found of {PATHS}"
    median, p99 = np.quantile(found, [0.5, 0.99])
    return MedianInterval(max(found), float(median), float(p99), len(found))


def _spread(values: Sequence[float]) -> MedianInterval:
    return MedianInterval(float(np.median(values)), min(values), max(values), len(values))


def _exact(value: float) -> MedianInterval:
    return MedianInterval(value, value, value, 1)


def _plain(name: str, value: MedianInterval, unit: str) -> MeasuredFigure:
    return MeasuredFigure(name, value, unit, "–", reached=True)


async def measure(live: Live, keys: Sequence[str], given: argparse.Namespace) -> list[MeasuredFigure]:
    """Take the figures that were asked for."""
    sessions = [
        aiohttp.ClientSession(
            headers={"authorization": f"Bearer {key}"}, connector=aiohttp.TCPConnector(limit=0)
        )
        for key in keys
    ]
    figures: list[MeasuredFigure] = []
    try:
        light, flood, _ = sessions
        bench = GroupsBench(live.url, "smol", light, flood, given.seconds, given.pairs, given.light)
        if given.only != "overload":
            figures += await fairness(bench)
        if given.only != "fairness":
            figures += await overload(bench, keys[2])
    finally:
        for session in sessions:
            await session.close()
    return figures


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, write, and return 0 when every bar was reached."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base", type=Path, default=Path(".cache/smollm2-135m-instruct"))
    parser.add_argument("--seconds", type=float, default=40.0, help="of each part")
    parser.add_argument("--pairs", type=int, default=2, help="parts with the flood and without it")
    parser.add_argument("--light", type=int, nargs="*", default=[SHORT, LONG], help="tokens of its prompts")
    parser.add_argument("--only", choices=("fairness", "overload"))
    parser.add_argument("--ungrouped", action="store_true", help="two keys of one group: as it was before")
    given = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no server is left behind
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "root"
        wardrobe(root, "init", "--base", given.base, "--name", "smol")
        keys = [_key(root, name, ungrouped=given.ungrouped) for name in ("light", "flood")]
        keys.append(str(wardrobe_json(root, "keys", "create", "--scope", "admin")["token"]))
        with Live.running(root, Path(folder) / "serve.log", *OPTIONS) as live:
            figures = asyncio.run(measure(live, keys, given))
    notes = [
        f"the flood: {FLOOD_STREAMS} prompts of {LONG} tokens in flight, answers of {FLOOD_TOKENS}",
        f"the engine runs {SEATS} at once",
        f"the light group asks for {LIGHT_TOKENS} tokens, "
        + " and ".join(f"{rate:g} prompts of {tokens} tokens a second" for tokens, rate in RATES.items()),
        "base without an adapter, CPU, uncompiled",
    ]
    return 0 if publish("groups", figures, notes=notes) else 1


def _key(root: Path, name: str, *, ungrouped: bool) -> str:
    if ungrouped:
        return str(wardrobe_json(root, "keys", "create")["token"])
    GroupStore(root).create(Group(name), who="bench")
    return KeyStore(root).create([Scope.INFER], who="bench", group=name)[1]


if __name__ == "__main__":
    sys.exit(main())
