"""A batch of a thousand requests beside interactive traffic: what it costs those who wait for a first token.

    python -m loadtests.bench.batches [--count 1000] [--base DIR] [--quick]

Clients ask in an open loop at a third of what the server can take, at the same random times with the batch
and without it, in turn. Then they stop, and the rest of the batch is waited for. Writes its results to
bench-results, and ends with 1 when a bar is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp

from loadtests.bench.peers.engines.asking import BenchRun
from loadtests.bench.peers.engines.ledger import Statistic, interval, ratio
from loadtests.bench.peers.engines.spread import TOKENS
from loadtests.bench.results import MeasuredFigure, MedianInterval, at_most, publish
from loadtests.bench.thousand import BenchEffort, ThousandBench
from loadtests.live import Live, wardrobe

if TYPE_CHECKING:
    import openai

COUNT = 1_000
LOAD = 1 / 3
TAIL_RATIO = 1.2
LINE_TOKENS = 8
_ENDED = frozenset({"completed", "failed", "expired", "cancelled"})
_OPTIONS = ("--max-model-len", "1024", "--max-num-seqs", "16", "--kv-cache-memory-bytes", str(2**29))


def submit(client: openai.OpenAI, model: str, count: int, part: int) -> str:
    """Make a batch of `count` requests and return its id."""
    lines = (
        {
            "custom_id": f"{part}-{number}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {
                "model": model,
                "messages": [{"role": "user", "content": f"Part {part}: name the animal number {number}."}],
                "max_tokens": LINE_TOKENS,
                "ignore_eos": True,
            },
        }
        for number in range(count)
    )
    text = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    file = client.files.create(file=("lines.jsonl", text), purpose="batch")
    batch = client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
    )
    return batch.id


def progress(client: openai.OpenAI, batch: str) -> tuple[str, int, int]:
    """Return a batch's state, and how many requests were answered well and not."""
    found = client.batches.retrieve(batch)
    counts = found.request_counts
    return found.status, counts.completed if counts else 0, counts.failed if counts else 0


async def measure(live: Live, model: str, count: int, effort: BenchEffort) -> list[MeasuredFigure]:
    """Compare clients beside a batch with clients alone, and see the batch to its end."""
    client = live.client()
    timeout = aiohttp.ClientTimeout(total=300)
    async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as session:
        bench = ThousandBench(live.url, session, [model], effort)
        await bench.closed(0, many=False)
        speeds = [(await bench.closed(turn, many=False)).tokens_per_second for turn in (1, 2)]
        rate = LOAD * min(speeds) / TOKENS
        print(f"  {min(speeds):.0f} tokens/s at least: {rate:.2f} requests/s are asked", flush=True)
        runs: dict[bool, list[BenchRun]] = {True: [], False: []}
        answered, last = 0, 2 * effort.pairs - 1
        for place in range(last + 1):
            beside = place % 4 in {0, 3}  # in the last turn, too: that batch is seen to its end
            batch = submit(client, model, count, place) if beside else ""
            run = await bench.open(rate, effort.open_seconds, 100 + place // 2, many=False)
            runs[beside].append(run)
            if beside:
                state, done, _ = progress(client, batch)
                answered += done
                print(f"  beside clients: {state}, {done} of {count} lines answered", flush=True)
                if place < last:
                    client.batches.cancel(batch)
                    await _ends(client, batch)
        firsts = {beside: _firsts(found) for beside, found in runs.items()}
        for beside, found in firsts.items():
            print(f"  {'beside' if beside else 'without'}: {sorted(map(round, found))} ms", flush=True)
        began, before = time.monotonic(), done
        state, done, failed = await _ends(client, batch)
        lines_per_second = (done - before) / (time.monotonic() - began)
    lost = sum(run.failed for every in runs.values() for run in every)
    wrong = count - done + (state != "completed")
    return [
        at_most(
            f"p99 to the first token at {LOAD:.0%} of capacity, beside a batch / without",
            ratio(firsts[True], firsts[False], Statistic.P99),
            TAIL_RATIO,
            "ratio",
        ),
        _plain("p99 to the first token without a batch", interval(firsts[False], Statistic.P99), "ms"),
        _plain("p99 to the first token beside a batch", interval(firsts[True], Statistic.P99), "ms"),
        _plain("median to the first token without a batch", interval(firsts[False], Statistic.MEDIAN), "ms"),
        _plain("median to the first token beside a batch", interval(firsts[True], Statistic.MEDIAN), "ms"),
        _single("lines/s beside clients", answered / (effort.pairs * effort.open_seconds), "1/s"),
        _single("lines/s alone", lines_per_second, "1/s"),
        at_most(f"lines of {count} without a good answer", _exact(wrong + failed), 0, "lines"),
        at_most("failed requests of clients", _exact(lost), 0, "requests"),
    ]


def _firsts(runs: Sequence[BenchRun]) -> list[float]:
    """Return the milliseconds to the first token of all answers."""
    return [1000 * one.first_token_seconds for run in runs for one in run.answered]


async def _ends(client: openai.OpenAI, batch: str) -> tuple[str, int, int]:
    while True:
        found = progress(client, batch)
        if found[0] in _ENDED:
            return found
        await asyncio.sleep(0.5)


def _exact(value: float) -> MedianInterval:
    return MedianInterval(value, value, value, 1)


def _plain(name: str, value: MedianInterval, unit: str) -> MeasuredFigure:
    return MeasuredFigure(name, value, unit, "–", reached=True)


def _single(name: str, value: float, unit: str) -> MeasuredFigure:
    return _plain(name, _exact(value), unit)


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, write, and return 0 when every bar was reached."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=COUNT)
    parser.add_argument("--base", type=Path, default=Path(".cache/smollm2-135m-instruct"))
    parser.add_argument("--quick", action="store_true", help="shorter turns, to see that it works")
    given = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no server is left behind
    effort = BenchEffort(pairs=2, per_turn=16, open_seconds=15.0 if given.quick else 40.0)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "root"
        wardrobe(root, "init", "--base", given.base, "--name", "smol")
        with Live.running(root, Path(folder) / "serve.log", *_OPTIONS) as live:
            figures = asyncio.run(measure(live, "smol", given.count, effort))
    notes = [
        f"lines ask for {LINE_TOKENS} tokens, clients for {TOKENS}",
        "the settings of `batches` are the defaults",
    ]
    return 0 if publish("batches", figures, notes=notes) else 1


if __name__ == "__main__":
    sys.exit(main())
