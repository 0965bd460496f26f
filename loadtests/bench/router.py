"""What the router costs: a mock bare and behind the router, in turn, driven by `wrk`.

    python -m loadtests.bench.router [--pairs 9] [--seconds 2]

Writes bench-results/router.json and .md, and ends with 1 when a bar is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loadtests.bench.mock import ADAPTER, ROLLING
from loadtests.bench.results import (
    MeasuredFigure,
    MedianInterval,
    at_least,
    at_most,
    median_interval,
    pair_ratio,
    publish,
)
from loadtests.bench.wrk import WrkRun, drive, on_core, request_body
from registry.foreign import python

ADDED_P50_MICROSECONDS = 100.0
THROUGHPUT_RATIO = 0.75
PROTOCOL_RATIO = 0.95
"""Of uvicorn's requests/s, with our limits on connections and nothing else of ours."""

LIMITS_MICROSECONDS = 10.0
"""What all limits of a group may cost one request, in latency and in CPU time."""


@dataclass(frozen=True, slots=True)
class LoadPairs:
    """The same load on the bare mock and behind the router, in the order they were run."""

    bare: list[WrkRun]
    routed: list[WrkRun]

    def added_p50(self) -> MedianInterval:
        """Return the added median latency in microseconds, pair by pair."""
        return median_interval(
            [own.p50 - other.p50 for own, other in zip(self.routed, self.bare, strict=True)]
        )

    def rate_ratio(self) -> MedianInterval:
        """Return routed / bare requests per second, pair by pair."""
        return pair_ratio([run.rate for run in self.routed], [run.rate for run in self.bare])

    def added_cpu(self) -> MedianInterval:
        """Return the added microseconds of a core per request, where the loads keep one busy."""
        pairs = zip(self.routed, self.bare, strict=True)
        return median_interval([1e6 / own.rate - 1e6 / other.rate for own, other in pairs])

    def note(self, what: str) -> str:
        """Return the absolute figures as a sentence."""
        rates = [str(median_interval([run.rate for run in runs])) for runs in (self.bare, self.routed)]
        p50 = [str(median_interval([run.p50 for run in runs])) for runs in (self.bare, self.routed)]
        return f"{what}: {' → '.join(rates)} requests/s, p50 {' → '.join(p50)} µs"


def main() -> int:
    """Measure, write, and return 0 when every bar was reached."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=9)
    parser.add_argument("--seconds", type=int, default=2)
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        sys.stderr.write("error: wrk: is not installed; `apt-get install wrk`\n")
        return 1
    with mock_server() as ports:
        loads = {
            (model, kind, connections): measure(
                ports, model, kind, connections, options.pairs, options.seconds
            )
            for model in (ADAPTER, ROLLING)
            for kind in ("json", "stream")
            for connections in (1, 16)
        }
        protocols = {
            name: measure(ports, ADAPTER, "json", 16, options.pairs, options.seconds, name)
            for name in ("ours", "h11")
        }
        counted = {
            connections: measure_limits(ports, connections, options.pairs, options.seconds)
            for connections in (1, 16)
        }
    notes = [pairs.note(_load(*load)) for load, pairs in loads.items()]
    share = protocols["h11"].rate_ratio()
    h11 = f"json, 16 connections, bare mock with h11 as the parser: {share} of httptools' requests/s"
    limits = at_least(
        "requests/s with our limits on connections (json, 16 connections)",
        protocols["ours"].rate_ratio(),
        PROTOCOL_RATIO,
    )
    found = [*figures(loads), limits, *figures_of_limits(counted)]
    notes += [
        pairs.note(f"{count} connections, a key without and with all limits")
        for count, pairs in counted.items()
    ]
    return 0 if publish("router", found, notes=[*notes, h11, SETUP]) else 1


SETUP = "uvicorn (uvloop, httptools) on one core, wrk (one thread) on another; a pair = bare, then routed"


def figures(loads: dict[tuple[str, str, int], LoadPairs]) -> list[MeasuredFigure]:
    """Return the figures with their bars: the same whether a rollout is open or not."""
    found = []
    for (model, kind, connections), pairs in loads.items():
        load = _load(model, kind, connections)
        if connections == 1:
            found.append(at_most(f"added p50 ({load})", pairs.added_p50(), ADDED_P50_MICROSECONDS, "µs"))
        else:
            found.append(
                at_least(f"requests/s of the bare mock ({load})", pairs.rate_ratio(), THROUGHPUT_RATIO)
            )
    return found


def figures_of_limits(counted: dict[int, LoadPairs]) -> list[MeasuredFigure]:
    """Return what all limits of a group cost, beside a key of a group that has none."""
    return [
        at_most("added p50 by all limits (1 connection)", counted[1].added_p50(), LIMITS_MICROSECONDS, "µs"),
        at_most(
            "added CPU by all limits (16 connections)", counted[16].added_cpu(), LIMITS_MICROSECONDS, "µs"
        ),
    ]


def _load(model: str, kind: str, connections: int) -> str:
    rollout = ", rollout open" if model == ROLLING else ""
    return f"{kind}, {connections} connection{'s' if connections > 1 else ''}{rollout}"


def measure(
    ports: dict[str, Any],
    model: str,
    kind: str,
    connections: int,
    pairs: int,
    seconds: int,
    other: str = "routed",
) -> LoadPairs:
    """Run `pairs` interleaved pairs, the bare mock and the port `other`, after one that warms up."""
    found = LoadPairs([], [])
    for turn in range(pairs + 1):
        bare = wrk(ports["bare"], model, kind, connections, seconds)
        routed = wrk(ports[other], model, kind, connections, seconds)
        if turn:
            found.bare.append(bare)
            found.routed.append(routed)
    return found


def measure_limits(ports: dict[str, Any], connections: int, pairs: int, seconds: int) -> LoadPairs:
    """Run `pairs` interleaved pairs behind the router with keys: one without limits, one with all of them."""
    body, found = request_body(ADAPTER, stream=False), LoadPairs([], [])
    for turn in range(pairs + 1):
        runs = [
            _right(drive(ports["keyed"], body, connections, seconds, ports[name]), name)
            for name in ("free", "limited")
        ]
        if turn:
            found.bare.append(runs[0])
            found.routed.append(runs[1])
    return found


def _right(run: WrkRun, what: str) -> WrkRun:
    if run.wrong:
        raise RuntimeError(f"{run.wrong} wrong answers of {run.requests} ({what})")
    return run


def wrk(port: int, model: str, kind: str, connections: int, seconds: int) -> WrkRun:
    """Run wrk once.

    Raises: RuntimeError: when any answer was not a 200.
    """
    run = drive(port, request_body(model, stream=kind == "stream"), connections, seconds)
    return _right(run, f"{model}, {kind}")


@contextmanager
def mock_server() -> Iterator[dict[str, Any]]:
    """Run `loadtests.bench.mock` on a core of its own and give its ports, keys and process id."""
    command = [*on_core(0), *python("-m", "loadtests.bench.mock")]
    # The mock is made of the tests' fakes, which are in the checkout only.
    paths = os.pathsep.join([str(Path.cwd()), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": paths}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout is not None
            ports: dict[str, Any] = json.loads(process.stdout.readline())
            _wait_until_open(ports["routed"])
            yield ports
        finally:
            process.terminate()
            process.wait(20)


def _wait_until_open(port: int) -> None:
    import httpx

    for _ in range(200):
        try:
            if httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.05)
    raise RuntimeError("the mock server did not become ready")


if __name__ == "__main__":
    sys.exit(main())
