"""Training beside serving on one small machine: what it costs the requests, and how far the training comes.

    python -P -m loadtests.bench.beside --base FOLDER [--pairs 3] [--seconds 60]

A real server answers requests that arrive at a third of what it can; its own worker trains a fine-tuning job
of the same base, or does not, in turn. Compared are the 99th percentiles of the time to the first token. The
training's progress is held against its pace on the idle server, times the share of the processors that the
requests leave. The report is printed, and kept in `bench-results`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from loadtests.bench.results import FOLDER
from loadtests.live import Live, becomes_ready, descendants, wardrobe
from registry.store import Registry
from registry.tuning.jobs import TuningJob, TuningJobs
from registry.tuning.machine import JobEvent, JobState
from registry.tuning.records import TuningRequest, new_id

SLOWER = 1.15
"""Bar: p99 to the first token beside training, over that without."""
PROGRESS = 0.76
"""Bar: share of the progress that the idle share of the processors allows."""

_PROMPT = "Explain in a few words why the sky is blue and what a rainbow is made of, please. " * 3
_TOKENS = 16
_OPTIONS = ("--max-model-len", "1024", "--max-num-seqs", "8")
_CAPACITY_SECONDS = 20.0
_FLUSH_SECONDS = 15.0
"""A job's figures are on the disk by then, and the step that the last window cut has ended."""
_AT_ONCE = 8


@dataclass
class Beside:
    """One server and one job; `url` and `model` are what requests name."""

    live: Live
    registry: Registry
    engine: Sequence[int]
    job: TuningJob = field(init=False)
    idle_pace: float = 0.0
    resting: float = 0.0
    without: list[float] = field(default_factory=list)
    beside: list[float] = field(default_factory=list)
    pace: list[float] = field(default_factory=list)
    busy: list[float] = field(default_factory=list)

    async def play(self, pairs: int, seconds: float) -> dict[str, object]:
        """Measure capacity, idle pace, and `pairs` of windows; return the report."""
        async with httpx.AsyncClient(timeout=120) as client:
            await self._closed(client, 5.0)
            capacity = await self._closed(client, _CAPACITY_SECONDS)
            rate, windows = capacity / 3, []
            self.job = _job(self.registry)
            self._resume()
            began, cpu = time.time(), _cpu_seconds(self.engine)
            await asyncio.sleep(seconds / 2)
            idle = (began, time.time())
            self.resting = (_cpu_seconds(self.engine) - cpu) / (idle[1] - began)
            for number in range(pairs):
                self._pause()
                cpu = _cpu_seconds(self.engine)
                self.without += await self._open(client, rate, seconds, number)
                self.busy.append((_cpu_seconds(self.engine) - cpu) / seconds)
                self._resume()
                began = time.time()
                self.beside += await self._open(client, rate, seconds, number)
                windows.append((began, time.time()))
            await asyncio.sleep(_FLUSH_SECONDS)
            self.idle_pace = self._pace(idle)
            self.pace = [self._pace(one) for one in windows]
        return self._report(capacity, rate, seconds)

    def _report(self, capacity: float, rate: float, seconds: float) -> dict[str, object]:
        cores = len(_cores())
        # An engine without requests takes some, too (it waits by looking): that is part of the idle pace.
        idle = (cores - statistics.mean(self.busy)) / (cores - self.resting)
        p99 = {"without": _quantile(self.without, 0.99), "beside": _quantile(self.beside, 0.99)}
        progress = statistics.mean(self.pace) / (self.idle_pace * idle)
        ratio = p99["beside"] / p99["without"]
        return {
            "capacity_per_second": round(capacity, 3),
            "rate_per_second": round(rate, 3),
            "window_seconds": seconds,
            "requests": [len(self.without), len(self.beside)],
            "p50_first_token_seconds": [round(_quantile(one, 0.5), 4) for one in (self.without, self.beside)],
            "p99_first_token_seconds": [round(one, 4) for one in p99.values()],
            "p99_ratio": round(ratio, 3),
            "engine_cores_at_rest_and_at_work": [
                round(self.resting, 3),
                round(statistics.mean(self.busy), 3),
            ],
            "idle_share": round(idle, 3),
            "steps_per_second_idle_server": round(self.idle_pace, 4),
            "steps_per_second_beside": [round(one, 4) for one in self.pace],
            "progress_of_what_the_idle_share_allows": round(progress, 3),
            "bars": {"p99_ratio": SLOWER, "progress": PROGRESS},
            "passed": ratio <= SLOWER and progress >= PROGRESS,
        }

    async def _ask(self, client: httpx.AsyncClient) -> float:
        """Return the seconds to the first token of one answer, which is read to its end."""
        body = {
            "model": self.registry.base.name, "stream": True, "max_tokens": _TOKENS, "temperature": 0,
            "ignore_eos": True,
            "messages": [{"role": "user", "content": f"{random.randrange(10**9)} {_PROMPT}"}],
        }  # fmt: skip
        began, first = time.monotonic(), None
        async with client.stream("POST", f"{self.live.url}/v1/chat/completions", json=body) as answer:
            answer.raise_for_status()
            async for line in answer.aiter_lines():
                if first is None and line.startswith("data: {") and '"content":"' in line.replace(" ", ""):
                    told = json.loads(line[6:])["choices"]
                    if told and told[0]["delta"].get("content"):
                        first = time.monotonic()
        assert first is not None
        return first - began

    async def _closed(self, client: httpx.AsyncClient, seconds: float) -> float:
        """Return how many requests a second are answered where there is always another one."""
        until, done = time.monotonic() + seconds, 0

        async def user() -> None:
            nonlocal done
            while time.monotonic() < until:
                await self._ask(client)
                done += 1

        began = time.monotonic()
        await asyncio.gather(*(user() for _ in range(_AT_ONCE)))
        return done / (time.monotonic() - began)

    async def _open(self, client: httpx.AsyncClient, rate: float, seconds: float, seed: int) -> list[float]:
        """Return the times to the first token of requests that arrive by chance, the same for each `seed`."""
        dice, tasks, at = random.Random(seed), [], 0.0
        began = time.monotonic()
        while at < seconds:
            await asyncio.sleep(max(0.0, began + at - time.monotonic()))
            tasks.append(asyncio.create_task(self._ask(client)))
            at += dice.expovariate(rate)
        return list(await asyncio.gather(*tasks))

    def _pace(self, window: tuple[float, float]) -> float:
        """Return the steps a second of a window that is over; parts of steps count by their time."""
        lines = map(json.loads, (self.job.folder / "metrics.jsonl").read_text().splitlines())
        ends = sorted((float(line["at"]), float(line["step"])) for line in lines if "loss" in line)

        def position(at: float) -> float:
            before = max((one for one in ends if one[0] <= at), default=ends[0])
            after = min((one for one in ends if one[0] > at), default=before)
            part = (at - before[0]) / (after[0] - before[0]) if after[0] > before[0] else 0.0
            return before[1] + part * (after[1] - before[1])

        began, ended = window
        return (position(ended) - position(began)) / (ended - began)

    def _pause(self) -> None:
        if self.job.last().state is not JobState.PAUSED:
            self.job.append(JobEvent.PAUSED, who="bench")
        while self.job.last().worker is not None:
            time.sleep(0.1)

    def _resume(self) -> None:
        """Have it train, and wait until it has made a step."""
        if self.job.last().state is JobState.PAUSED:
            self.job.append(JobEvent.RESUMED, who="bench")
        before = self._lines()
        while self._lines() <= before:
            assert not self.job.last().state.final, self.job.last().message
            time.sleep(0.2)

    def _lines(self) -> int:
        path = self.job.folder / "metrics.jsonl"
        return path.read_text().count("\n") if path.exists() else 0


def main() -> None:
    """Measure, print the report and write it; the exit code is 1 where a bar was missed."""
    parser = argparse.ArgumentParser(description="Train beside serving.")
    parser.add_argument("--base", type=Path, required=True)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=60.0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="wardrobe-beside-") as folder:
        report = _measure(Path(folder), asked.base, asked.pairs, asked.seconds)
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / "beside.json").write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))
    sys.exit(0 if report["passed"] else 1)


def _measure(folder: Path, base: Path, pairs: int, seconds: float) -> dict[str, object]:
    root = folder / "root"
    wardrobe(root, "init", "--base", base)
    live = Live.start(root, folder / "server.log", *_OPTIONS)
    try:
        assert becomes_ready(live.process, f"{live.url}/readyz"), (folder / "server.log").read_text()
        registry = Registry.open(root)
        found = Beside(live, registry, _descendants(live.process.pid))
        return asyncio.run(found.play(pairs, seconds))
    finally:
        print((folder / "server.log").read_text()[-3000:], file=sys.stderr)
        live.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            live.process.wait(timeout=60)


def _job(registry: Registry) -> TuningJob:
    rows = "".join(
        json.dumps(
            {"messages": [_said("user", f"{n}: {_PROMPT}"), _said("assistant", "Rain and light. " * 12)]}
        )
        + "\n"
        for n in range(64)
    )
    file = registry.catalogue.files.create("fine-tune", "rows.jsonl", [rows.encode()], who="bench")
    job = new_id()
    request = TuningRequest(
        id=job, created=int(time.time()), who="bench", adapter="beside", model=registry.base.name,
        base_model=registry.base.name, start=None, training_file=file.id, validation_file=None,
        method={"type": "supervised", "supervised": {"hyperparameters": {"batch_size": 4}}}, seed=0,
        tuned_name=f"ft:beside:{job[-8:]}",
        extras={"training": {"steps": 100_000}, "checkpoints": {"every": 1000}},
    )  # fmt: skip
    return TuningJobs(registry.catalogue.root).create(request)


def _said(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def _descendants(pid: int) -> list[int]:
    return [pid, *descendants(pid)]


def _cpu_seconds(processes: Sequence[int]) -> float:
    """Return the seconds of processor time that these processes took so far."""
    ticks = 0
    for pid in processes:
        with suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def _cores() -> set[int]:
    return os.sched_getaffinity(0)


def _quantile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


if __name__ == "__main__":
    main()
