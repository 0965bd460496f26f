"""Starts and recoveries beside bare vLLM's, in one run.

Each round: bare vLLM; ours with an empty cache (`engine.compile = auto`); eight streams while code is made
beside them, and after; ours again, on that code; back after kill -9 of EngineCore, and of the whole child.
The bars: a first start within 1.1 × bare's, all others within 0.6 ×. Run it as
`python -m loadtests.bench.starts [--base DIR] [--rounds N]`; it exits 1 when a bar is missed.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx

from loadtests.bench.calls.__main__ import demo_base
from loadtests.bench.peers.engines.start import Sizes, running_bare
from loadtests.bench.results import at_least, at_most, median_interval, pair_ratio, publish
from loadtests.live import Live, becomes_ready, command_line, descendants, is_ok, wardrobe

SIZES = Sizes(slots=16, resident=32, rank=32)
STREAMS = 8
STREAM_SECONDS = 15.0
COMPILE_SECONDS = 1800.0
"""Longest wait for the compiler: it has the lowest priority of all that runs on the machine."""

KILLED = {"EngineCore": "EngineCore", "the child": "serve.engine.child"}
FIRST, LATER, BESIDE = "first start, no cache", "later start", "tokens/s beside the compiler / without"

Samples = dict[str, list[float]]


def measure(base: Path, folder: Path, seconds: Samples) -> None:
    """Measure one round in `folder`, and add to `seconds`: times by what was done, rates by their name."""
    root = folder / "root"
    wardrobe(root, "init", "--base", base, "--name", "base")
    with running_bare(base, "base", folder / "bare.log", SIZES) as bare:
        seconds["bare"].append(bare.start_seconds)
    with _ours(root, folder / "first.log") as (live, took):
        seconds[FIRST].append(took)
        time.sleep(STREAM_SECONDS)  # the compiler has imported what it needs
        compiling = rate(live)
        _wait_for_code(live)
        seconds["beside"].append(compiling)
        seconds["without"].append(rate(live))
    with _ours(root, folder / "later.log") as (live, took):
        seconds[LATER].append(took)
        seconds["compiled"].append(rate(live))
        for name, title in KILLED.items():
            seconds[f"back after kill -9 of {name}"].append(_kill(live, title))


@contextlib.contextmanager
def _ours(root: Path, log: Path) -> Iterator[tuple[Live, float]]:
    began = time.monotonic()
    environment = {"WARDROBE_ENGINE__COMPILE": "auto"}
    with Live.running(root, log, *SIZES.options(), environment=environment) as live:
        yield live, time.monotonic() - began


def rate(live: Live, seconds: float = STREAM_SECONDS) -> float:
    """Return the tokens per second of `STREAMS` greedy streams on the base."""
    tokens = [0] * STREAMS
    until = time.monotonic() + seconds

    def stream(place: int) -> None:
        body = {"model": "base", "prompt": f"Count from {place}:", "max_tokens": 32, "ignore_eos": True}
        with httpx.Client(timeout=120) as client:
            while time.monotonic() < until:
                answer = client.post(f"{live.url}/v1/completions", json={**body, "temperature": 0})
                tokens[place] += answer.raise_for_status().json()["usage"]["completion_tokens"]

    began = time.monotonic()
    streams = [threading.Thread(target=stream, args=(place,)) for place in range(STREAMS)]
    for one in streams:
        one.start()
    for one in streams:
        one.join()
    return sum(tokens) / (time.monotonic() - began)


def _wait_for_code(live: Live) -> None:
    until = time.monotonic() + COMPILE_SECONDS
    while "faster code is ready" not in live.log.read_text():
        if time.monotonic() > until or "compiling faster code failed" in live.log.read_text():
            raise RuntimeError(f"no compiled code:\n{live.log.read_text()[-2000:]}")
        time.sleep(0.5)


def _kill(live: Live, title: str) -> float:
    """Kill what bears `title` and return the seconds until the server is ready again."""
    time.sleep(2)
    for process in descendants(live.process.pid):
        if title in command_line(process):
            os.kill(process, signal.SIGKILL)
    began = time.monotonic()
    while is_ok(f"{live.url}/readyz"):
        time.sleep(0.02)
    if not becomes_ready(live.process, f"{live.url}/readyz"):
        raise RuntimeError(f"it did not come back:\n{live.log.read_text()[-2000:]}")
    return time.monotonic() - began


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and publish; return 1 when a bar is missed."""
    parser = argparse.ArgumentParser(prog="python -m loadtests.bench.starts", allow_abbrev=False)
    parser.add_argument("--base", type=Path, help="a model folder (default: `wardrobe base demo`)")
    parser.add_argument("--rounds", type=int, default=3)
    own = parser.parse_args(argv)
    base = own.base or demo_base()
    seconds: Samples = defaultdict(list)
    for _ in range(own.rounds):
        with tempfile.TemporaryDirectory() as folder:
            measure(base.absolute(), Path(folder), seconds)
    bars = {FIRST: 1.1, LATER: 0.6, **{f"back after kill -9 of {name}": 0.6 for name in KILLED}}
    figures = [
        at_most(f"{name} / bare's", pair_ratio(seconds[name], seconds["bare"]), bar, "ratio")
        for name, bar in bars.items()
    ]
    figures.append(at_least(BESIDE, pair_ratio(seconds["beside"], seconds["without"]), 0.9))
    notes = [f"{name}: {median_interval(values)}" for name, values in seconds.items()]
    notes.append("seconds; tokens/s of 8 streams on the base for beside, without and compiled")
    return 0 if publish("starts", figures, notes=notes) else 1


if __name__ == "__main__":
    sys.exit(main())
