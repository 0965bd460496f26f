"""What the routers' turns say: figures against the direct arm, bars against the peers, and a table. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from loadtests.bench.mock import CHUNKS
from loadtests.bench.results import (
    MeasuredFigure,
    MedianInterval,
    at_least,
    at_most,
    median_interval,
    pair_ratio,
)
from loadtests.bench.wrk import WrkRun

DIRECT, OURS, REFERENCE = "direct", "ours", "nginx"
"""The reference knows nothing of what passes through: a measure of being in between, and no bar of ours."""


@dataclass(frozen=True, slots=True)
class LoadKind:
    """`kind` is json or stream."""

    kind: str
    connections: int

    def __str__(self) -> str:
        return f"{self.kind}, {self.connections} connection{'s' if self.connections > 1 else ''}"


@dataclass(frozen=True, slots=True)
class RouterTurn:
    """One turn of an arm: what wrk saw, and the CPU time of the arm's servers per answer in microseconds."""

    run: WrkRun
    cpu: float


Measured = dict[tuple[LoadKind, str], list[RouterTurn]]
"""The turns of every load and arm, in the order of the rounds; the direct arm is always among them."""

P99_REQUESTS = 100
"""A quantile needs a request beyond it."""

_ADDED: dict[str, Callable[[RouterTurn], float]] = {
    "p50": lambda turn: turn.run.p50,
    "p99": lambda turn: turn.run.p99,
    "CPU time per answer": lambda turn: turn.cpu,
}


def figures(measured: Measured) -> list[MeasuredFigure]:
    """Return every arm's figures beside the direct arm, then ours beside each peer with its bar."""
    found = []
    for load, arm in measured:
        if arm == DIRECT:
            continue
        if count := wrong(measured[load, arm]):
            total = float(count)
            found.append(
                at_most(f"wrong answers, {arm} ({load})", MedianInterval(total, total, total, 1), 0, "n")
            )
            continue
        found += [
            _plain(f"added {what}, {arm} ({load})", added(measured, load, arm, of), "µs")
            for what, of in _ADDED.items()
            if what != "p99" or enough_for_p99(measured, load, arm)
        ]
        share = rate(measured, load, arm, DIRECT)
        found.append(_plain(f"requests/s of direct, {arm} ({load})", share, "ratio"))
    return found + _bars(measured)


def _bars(measured: Measured) -> list[MeasuredFigure]:
    """Return ours against each peer: less time added to one request, and more requests of many."""
    found = []
    for load, arm in measured:
        failed = wrong(measured[load, arm]) or wrong(measured.get((load, OURS), []))
        if arm in {DIRECT, OURS, REFERENCE} or (load, OURS) not in measured or failed:
            continue
        if load.connections == 1:
            less = added(measured, load, OURS, _ADDED["p50"], beside=arm)
            found.append(at_most(f"p50 of ours less that of {arm} ({load})", less, 0, "µs"))
        else:
            found.append(at_least(f"requests/s, ours / {arm} ({load})", rate(measured, load, OURS, arm), 1))
    return found


def _plain(name: str, value: MedianInterval, unit: str) -> MeasuredFigure:
    return MeasuredFigure(name, value, unit, "–", reached=True)


def added(
    measured: Measured, load: LoadKind, arm: str, of: Callable[[RouterTurn], float], *, beside: str = DIRECT
) -> MedianInterval:
    """Return what an arm's turns have more than those of `beside`, round by round."""
    pairs = zip(measured[load, arm], measured[load, beside], strict=True)
    return median_interval([of(own) - of(other) for own, other in pairs])


def rate(measured: Measured, load: LoadKind, arm: str, beside: str) -> MedianInterval:
    """Return the requests per second as a share of those of `beside`, round by round."""
    own, other = ([turn.run.rate for turn in measured[load, name]] for name in (arm, beside))
    return pair_ratio(own, other)


def enough_for_p99(measured: Measured, load: LoadKind, arm: str) -> bool:
    """Return whether every turn had the requests that a 99th percentile needs."""
    return all(turn.run.requests >= P99_REQUESTS for turn in measured[load, arm])


def wrong(turns: list[RouterTurn]) -> int:
    """Return how many answers were no 200, or never came; a turn without any answer is one."""
    return sum(turn.run.wrong + (turn.run.requests == 0) for turn in turns)


def summary(measured: Measured) -> str:
    """Return a Markdown table with a line for every load and arm; medians over the rounds."""
    head = ["load", "through", "p50 µs", "added p50", "added p99", "added CPU µs", "requests/s"]
    head += ["of direct", "chunks/s"]
    lines = [f"| {' | '.join(head)} |", "|---|---" + "|--:" * (len(head) - 2) + "|"]
    for (load, arm), turns in measured.items():
        cells = [str(load), arm, *_cells(measured, load, arm, turns)]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cells(measured: Measured, load: LoadKind, arm: str, turns: list[RouterTurn]) -> list[str]:
    if count := wrong(turns):
        answers = sum(turn.run.requests for turn in turns)
        return [f"fails: {count} wrong beside {answers} answers", *["–"] * 6]
    more = ["–"] * 3
    share = "–"
    if arm != DIRECT:
        more = [f"{added(measured, load, arm, of).median:+,.0f}" for of in _ADDED.values()]
        more[1] = more[1] if enough_for_p99(measured, load, arm) else "–"
        share = f"{rate(measured, load, arm, DIRECT).median:.3f}"
    rates = median_interval([turn.run.rate for turn in turns]).median
    chunks = f"{rates * CHUNKS:,.0f}" if load.kind == "stream" else "–"
    p50 = median_interval([turn.run.p50 for turn in turns]).median
    return [f"{p50:,.0f}", *more, f"{rates:,.0f}", share, chunks]


def notes(missing: Mapping[str, str]) -> list[str]:
    """Return how it was measured, and which peers were not."""
    return [
        "the mock: uvicorn (uvloop, httptools) on one core, ours in its process; wrk, one thread, on another",
        "the peers and nginx: processes of their own, free on both cores; no arm checks keys",
        "vllm-router as deploy/router/start.sh runs it; LiteLLM with one worker, no database, no callbacks",
        "nginx, where it is installed: a bare pass-through with kept connections, the price of any process",
        f"a request: 1,000 bytes; an answer: 300 bytes of JSON, or {CHUNKS} chunks of 150 bytes at once",
        "added: to the direct arm of the same round; CPU: user and kernel time of all servers of the arm",
        *(f"not measured: {label}: {reason}" for label, reason in missing.items()),
    ]
