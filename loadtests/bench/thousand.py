"""A thousand versions in one replica: asked by Zipf against one adapter alone.

    python -m loadtests.bench.thousand [--count 1024] [--base DIR] [--quick]

Every version has a slot, so nothing is loaded while it is asked; what is measured is what their number costs.
Speed is compared in a closed loop, turn by turn. The time to the first token is compared in an open loop
whose requests arrive at 80 % of what one adapter can take, at the same random times in both. Writes
its results to bench-results, and ends with 1 when a bar is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import aiohttp
import numpy as np

from loadtests.adapters import write_ranked
from loadtests.bench.peers.engines.asking import BenchQuestion, BenchRun, Reply, ask, crowd
from loadtests.bench.peers.engines.ledger import Statistic, interval, ratio
from loadtests.bench.peers.engines.spread import ATTENTION, STREAMS, TOKENS
from loadtests.bench.peers.engines.usage import ResourceUsage
from loadtests.bench.results import (
    MeasuredFigure,
    MedianInterval,
    at_least,
    at_most,
    pair_ratio,
    publish,
    table,
)
from loadtests.live import Live, descendants, wardrobe
from registry import Registry
from registry.records import BaseModelInfo, Limits

COUNT = 1024
RANK = 8
ONE = "tenant-0000"
LOAD = 0.8
SPEED_RATIO = 0.92
TAIL_RATIO = 1.5
FIXED_BYTES = 5 * 2**30
"""Base, KV cache of 1 GiB and processes: 3.6 GiB were measured; the rest is for whoever asks."""


@dataclass(frozen=True, slots=True)
class BenchEffort:
    """How much is asked: pairs of closed turns, requests in each, and the seconds of an open turn."""

    pairs: int = 5
    per_turn: int = 48
    open_seconds: float = 30.0


_BYTES = 2  # of a weight in bfloat16
_COPIES = 2  # of an adapter: its slot, and the host's


QUICK = BenchEffort(pairs=2, per_turn=32, open_seconds=15.0)


@dataclass(frozen=True, slots=True)
class ThousandBench:
    """A running server on which every version of `names` has a slot."""

    url: str
    session: aiohttp.ClientSession
    names: Sequence[str]
    effort: BenchEffort = BenchEffort()
    seed: int = 13

    def asked(self, count: int, turn: int, *, many: bool) -> list[BenchQuestion]:
        """Return questions for versions by Zipf's law (1.0), or all for the first version."""
        weights = 1.0 / np.arange(1, len(self.names) + 1)
        drawn = np.random.default_rng((self.seed, turn)).choice(
            len(self.names), count, p=weights / weights.sum()
        )
        return [
            BenchQuestion(self.names[place] if many else self.names[0], f"Story {turn}.{index}.", TOKENS)
            for index, place in enumerate(drawn)
        ]

    async def closed(self, turn: int, *, many: bool) -> BenchRun:
        """Ask a turn's questions, a fixed number at a time."""
        return await crowd(
            self.session, self.url, self.asked(self.effort.per_turn, turn, many=many), streams=STREAMS
        )

    async def open(self, rate: float, seconds: float, turn: int, *, many: bool) -> BenchRun:
        """Ask at random times, `rate` requests per second, whatever becomes of them."""
        gaps = np.random.default_rng((self.seed, turn, 1)).exponential(1 / rate, int(rate * seconds))
        questions = self.asked(len(gaps), turn, many=many)
        began = time.monotonic()

        async def later(due: float, question: BenchQuestion) -> None:
            await asyncio.sleep(max(0.0, began + due - time.monotonic()))
            replies.append(await ask(self.session, self.url, question))

        replies: list[Reply] = []
        await asyncio.gather(*map(later, np.cumsum(gaps), questions))
        return BenchRun(replies, time.monotonic() - began)


def version_bytes(base: BaseModelInfo, rank: int, modules: Sequence[str]) -> int:
    """Return what one resident version takes: its matrices, once in a slot and once on the host."""
    shapes = [dims for name, dims in base.modules.items() if name.rpartition(".")[2] in modules]
    return _COPIES * _BYTES * rank * sum(rows + columns for rows, columns in shapes)


def how_many(wanted: int, available: int, each: int) -> int:
    """Return how many versions fit into `available` bytes of memory, `wanted` at most."""
    return max(1, min(wanted, (available - FIXED_BYTES) // each))


def available_bytes(meminfo: str) -> int:
    """Return the memory that is free for a new process, from the text of /proc/meminfo."""
    line = next(line for line in meminfo.splitlines() if line.startswith("MemAvailable:"))
    return int(line.split()[1]) * 1024


async def measure(bench: ThousandBench) -> list[MeasuredFigure]:
    """Compare many versions with one: speed in a closed loop, the first token's tail in an open one."""
    await bench.closed(0, many=True)
    many, one = await _speeds(bench)
    rate = LOAD * median(one) / TOKENS
    firsts: dict[bool, list[float]] = {True: [], False: []}
    lost = 0
    for turn in range(2):
        for arm in (False, True) if turn % 2 == 0 else (True, False):
            run = await bench.open(rate, bench.effort.open_seconds, 100 + turn, many=arm)
            firsts[arm] += [1000 * reply.first_token_seconds for reply in run.answered]
            lost += run.failed
            print(f"  open, {'many' if arm else 'one'}: {len(run.replies)} asked, {run.failed} failed")
    title = f"{len(bench.names)} versions by Zipf / one adapter"
    return [
        at_least(f"{title}: tokens/s, {STREAMS} streams", pair_ratio(many, one), SPEED_RATIO),
        at_most(
            f"{title}: p99 to the first token at {LOAD:.0%} of capacity",
            ratio(firsts[True], firsts[False], Statistic.P99),
            TAIL_RATIO,
            "ratio",
        ),
        _plain("one adapter: p99 to the first token", interval(firsts[False], Statistic.P99), "ms"),
        _plain("many: p99 to the first token", interval(firsts[True], Statistic.P99), "ms"),
        _plain("one adapter: tokens/s", interval(one, Statistic.MEDIAN), "tok/s"),
        _plain("requests/s of the open loop", MedianInterval(rate, rate, rate, 1), "1/s"),
        at_most("failed requests", MedianInterval(lost, lost, lost, 1), 0, "requests"),
    ]


async def _speeds(bench: ThousandBench) -> tuple[list[float], list[float]]:
    """Return the tokens per second of many and of one, turn by turn."""
    found: dict[bool, list[float]] = {True: [], False: []}
    for turn in range(1, bench.effort.pairs + 1):
        for arm in (False, True) if turn % 2 else (True, False):
            run = await bench.closed(turn, many=arm)
            found[arm].append(run.tokens_per_second)
        print(f"  pair {turn}: {found[True][-1]:.0f} / {found[False][-1]:.0f} tok/s", flush=True)
    return found[True], found[False]


def _plain(name: str, value: MedianInterval, unit: str) -> MeasuredFigure:
    return MeasuredFigure(name, value, unit, "–", reached=True)


def publish_all(registry: Registry, folder: Path, count: int) -> list[str]:
    """Publish `count` different adapters of one version each and return their names."""
    names = [f"tenant-{place:04}" for place in range(count)]
    for seed, name in enumerate(names):
        source = write_ranked(folder / name, registry.base, seed, RANK, ATTENTION)
        registry.publish(name, source, who="bench")
    return names


def server_bytes(pid: int) -> int:
    """Return the memory that a server's processes hold, shared pages counted once (PSS)."""
    total = 0
    for one in (pid, *descendants(pid)):
        try:
            text = Path(f"/proc/{one}/smaps_rollup").read_text()
        except OSError:
            continue
        total += sum(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("Pss:"))
    return total


async def _drive(live: Live, names: Sequence[str], effort: BenchEffort) -> list[MeasuredFigure]:
    timeout = aiohttp.ClientTimeout(total=300)
    async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as session:
        await ResourceUsage.when_quiet(live.process.pid)
        before = ResourceUsage.now(live.process.pid)
        found = await measure(ThousandBench(live.url, session, names, effort))
        others = ResourceUsage.now(live.process.pid).others_share(before)
        return [*found, _plain("cores used by other work", MedianInterval(others, others, others, 1), "%")]


def options(count: int) -> list[str]:
    """Return vLLM's options: a slot for every version, of the modules and the rank that they have."""
    return [
        *("--max-model-len", "1024", "--max-num-seqs", "32", "--kv-cache-memory-bytes", str(2**30)),
        *("--max-loras", str(count), "--max-cpu-loras", str(count)),
        *("--lora-target-modules", *ATTENTION),
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, write, and return 0 when every bar was reached."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base", type=Path, default=Path(".cache/smollm2-135m-instruct"))
    parser.add_argument("--count", type=int, default=COUNT, help="versions, as far as memory allows")
    parser.add_argument("--quick", action="store_true", help="a fraction of it; nothing is written")
    given = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no server is left behind
    wardrobe(Path(".cache"), "base", "demo", given.base)
    with tempfile.TemporaryDirectory(prefix="wardrobe-thousand-") as scratch:
        folder = Path(scratch)
        registry = Registry.init(folder / "root", given.base.absolute(), limits=Limits(max_lora_rank=RANK))
        each = version_bytes(registry.base, RANK, ATTENTION)
        count = how_many(given.count, available_bytes(Path("/proc/meminfo").read_text()), each)
        sums = f"{count} versions x {each / 2**20:.2f} MiB = {count * each / 2**30:.2f} GiB (slot and host)"
        print(f"  {sums}", flush=True)
        began = time.monotonic()
        names = publish_all(registry, folder / "made", count)
        published = time.monotonic() - began
        environment = {
            "WARDROBE_RESIDENCY__REQUIRE_PROOF": "false",
            "WARDROBE_ENGINE__COMPILE": "on",
            "VLLM_CACHE_ROOT": str(Path(".cache/thousand-vllm").absolute()),
            "NUMBA_CACHE_DIR": str(Path(".cache/peers-numba").absolute()),
        }
        began = time.monotonic()
        with Live.running(registry.root, folder / "log", *options(count), environment=environment) as live:
            ready = time.monotonic() - began
            held = server_bytes(live.process.pid)
            print(
                f"  {published:.0f} s to publish, {ready:.0f} s to start, {held / 2**30:.1f} GiB", flush=True
            )
            figures = asyncio.run(_drive(live, names, QUICK if given.quick else BenchEffort()))
    notes = [
        f"base {registry.base.name}, rank {RANK}, {', '.join(ATTENTION)}; {' '.join(options(count))}",
        sums,
        f"{published:.0f} s to publish them, {ready:.0f} s to start with all of them loaded",
        f"the server's processes then hold {held / 2**30:.1f} GiB (PSS)",
        "proofs were off: the figures are those of serving",
        f"{os.cpu_count()} cores",
    ]
    if given.quick:
        print(table(figures))
        return 0 if all(figure.reached for figure in figures) else 1
    return 0 if publish("thousand", figures, notes=notes) else 1


if __name__ == "__main__":
    sys.exit(main())
