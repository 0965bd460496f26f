"""The real vLLM, measured through the router: what it costs, how fast versions come and go, who notices.

One engine with the base model and adapters built from bytes; every figure is taken while it runs. Run it
as `python -m loadtests.bench.serving [--base DIR] [--pairs N]`; it exits 1 when a bar is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import numpy as np

from loadtests.adapters import write_adapter
from loadtests.bench.engine import running_engine
from loadtests.bench.results import (
    MeasuredFigure,
    MedianInterval,
    at_least,
    at_most,
    median_interval,
    pair_ratio,
    publish,
)
from loadtests.bench.streams import batch, stream
from loadtests.live import wardrobe
from registry import Registry

STREAMS = 16
TOKENS = 96
OPTIONS = ("--max-model-len", "1024", "--max-num-seqs", "32", "--max-loras", "8", "--max-cpu-loras", "32")
BARE = {"x-bench-bare": "1"}
CHANGES = 11
LARGE_MEGABYTES = 20
POLL_SECONDS = 0.01


@dataclass(frozen=True, slots=True)
class ServingBench:
    """A running engine, its root, and a session to ask it with."""

    url: str
    registry: Registry
    session: aiohttp.ClientSession
    folder: Path

    async def register(self, adapter: str, seed: int, megabytes: float = 4, *, cold: bool = False) -> str:
        """Publish a version straight into the root, as another process would; return NAME@N.

        A `cold` one is not an adapter's `stable`, so nothing loads it before it is asked for.
        """
        folder = self.folder / f"{adapter}-{seed}"
        await asyncio.to_thread(write_adapter, folder, self.registry.base, seed, megabytes)
        done = await asyncio.to_thread(self.registry.publish, adapter, folder, who="bench", no_stable=cold)
        return done.version.name

    async def answers(self, model: str) -> str | None:
        """Ask for one token; return the model that answered, None while it is unknown."""
        try:
            return (await stream(self.session, self.url, model, "Hello", max_tokens=1)).model
        except aiohttp.ClientResponseError as error:
            if error.status not in {404, 503}:
                raise
            return None

    async def until_answered(self, model: str, by: str) -> float:
        """Ask `model` again and again until the version `by` answers; return the clock then."""
        while await self.answers(model) != by:  # noqa: ASYNC110 - a client has no event to wait for
            await asyncio.sleep(POLL_SECONDS)
        return time.monotonic()


async def router_share(bench: ServingBench, pairs: int) -> list[MeasuredFigure]:
    """Compare the tokens per second of one engine with the router and around it."""
    base = [bench.registry.base.name] * STREAMS
    await batch(bench.session, bench.url, base, max_tokens=TOKENS)
    await batch(bench.session, bench.url, base, max_tokens=TOKENS, headers=BARE)
    routed: list[float] = []
    bare: list[float] = []
    for index in range(pairs):
        # The order alternates, so that a drift within the pairs favours neither side.
        for arm in ("routed", "bare") if index % 2 else ("bare", "routed"):
            headers = BARE if arm == "bare" else None
            _, speed = await batch(bench.session, bench.url, base, max_tokens=TOKENS, headers=headers)
            (routed if arm == "routed" else bare).append(speed)
        print(f"  pair {index + 1}: {routed[-1]:.0f} / {bare[-1]:.0f} tok/s", flush=True)
    figures = [
        at_least(f"tokens/s with the router / without, {STREAMS} streams", pair_ratio(routed, bare), 0.98)
    ]
    return [
        *figures,
        _plain(f"tokens/s without the router, {STREAMS} streams", median_interval(bare), "tok/s"),
    ]


async def first_token_of_new(bench: ServingBench) -> MeasuredFigure:
    """Time from the start of `publish` by another process to the first token of the new version."""
    await bench.register("fresh", 0)
    await bench.answers("fresh")
    seconds = []
    for index in range(1, CHANGES + 1):
        folder = bench.folder / f"fresh-{index}"
        await asyncio.to_thread(write_adapter, folder, bench.registry.base, index, 4)
        started = time.monotonic()
        done = await asyncio.to_thread(bench.registry.publish, "fresh", folder, who="bench")
        name = done.version.name
        seconds.append(await bench.until_answered(name, name) - started)
    return at_most(
        "register (4 MB, other process) → first token of the new version", median_interval(seconds), 1, "s"
    )


async def alias_moves(bench: ServingBench) -> MeasuredFigure:
    """Time from the start of a promotion by another process to the first answer by the new version."""
    for seed in (1, 2):
        name = await bench.register("moved", seed)
        await bench.until_answered(name, name)
    seconds = []
    for index in range(CHANGES):
        number = 2 if index % 2 == 0 else 1
        started = time.monotonic()
        await asyncio.to_thread(bench.registry.promote, "moved", number, who="bench")
        seconds.append(await bench.until_answered("moved", f"moved@{number}") - started)
    return at_most(
        "alias move (other process) → first answer by the new version", median_interval(seconds), 1, "s"
    )


async def gaps_while_loading(bench: ServingBench, streams: int) -> list[MeasuredFigure]:
    """The p99 of the gaps between other streams' tokens while 20 MB versions load, and while none does."""
    base = bench.registry.base.name
    quiet: list[float] = []
    loading: list[float] = []
    loads: list[float] = []
    for index in range(CHANGES):
        large = await bench.register(f"large-{index}", index, LARGE_MEGABYTES, cold=True)
        running = asyncio.create_task(batch(bench.session, bench.url, [base] * streams, max_tokens=160))
        await asyncio.sleep(1.0)
        began = time.monotonic()
        ended = await bench.until_answered(large, large)
        loads.append(ended - began)
        done, _ = await running
        for one in done:
            loading.extend(one.gaps(began, ended))
            quiet.extend(one.gaps(one.arrivals[0], began))
    name = f"p99 gap between tokens of {streams} streams while a {LARGE_MEGABYTES} MB version loads"
    cold = f"first token of a cold {LARGE_MEGABYTES} MB version, under load (verify, load, prove)"
    return [
        at_most(name, _tail(loading), 250, "ms, in brackets median and maximum"),
        _plain("the same while nothing loads", _tail(quiet), "ms, in brackets median and maximum"),
        _plain(cold, median_interval(loads), "s"),
    ]


def _tail(gaps: Sequence[float]) -> MedianInterval:
    milliseconds = [1000 * gap for gap in gaps]
    p99 = float(np.quantile(milliseconds, 0.99))
    return MedianInterval(p99, statistics.median(milliseconds), max(milliseconds), len(milliseconds))


def _plain(name: str, value: MedianInterval, unit: str) -> MeasuredFigure:
    return MeasuredFigure(name, value, unit, "–", reached=True)


async def measure(url: str, registry: Registry, folder: Path, pairs: int) -> list[MeasuredFigure]:
    """Take every figure, one after the other."""
    timeout = aiohttp.ClientTimeout(total=300)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        bench = ServingBench(url, registry, session, folder)
        figures = await router_share(bench, pairs)
        figures.append(await first_token_of_new(bench))
        figures.append(await alias_moves(bench))
        figures.extend(await gaps_while_loading(bench, 4))
    return figures


def main(argv: Sequence[str] | None = None) -> int:
    """Start the engine, measure, write the results; return 1 when a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", type=Path, default=Path(".cache/smollm2-135m-instruct"))
    parser.add_argument("--pairs", type=int, default=9, help="pairs with and without the router (at least 7)")
    options = parser.parse_args(argv)
    wardrobe(Path(".cache"), "base", "demo", options.base)
    with tempfile.TemporaryDirectory(prefix="wardrobe-bench-") as scratch:
        folder = Path(scratch)
        registry = Registry.init(folder / "root", options.base)
        started = time.monotonic()
        with running_engine(folder / "root", folder / "engine.log", OPTIONS) as url:
            seconds = time.monotonic() - started
            figures = asyncio.run(measure(url, registry, folder, options.pairs))
    notes = [
        f"base {registry.base.name}, CPU, uncompiled (vLLM turns compilation off with LoRA)",
        " ".join(OPTIONS),
        f"the engine took {seconds:.0f} s to start",
    ]
    return 0 if publish("serving", figures, notes=notes) else 1


if __name__ == "__main__":
    sys.exit(main())
