"""Many adapters at once: the same streams over 1, 4, … different adapters, resident and beyond the slots."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

from loadtests.adapters import write_ranked
from loadtests.bench.peers.engines.arms import EngineArm
from loadtests.bench.peers.engines.asking import BenchQuestion, BenchRun, Reply, crowd
from loadtests.bench.peers.engines.ledger import LedgerRow, SampleLedger, Statistic
from loadtests.bench.peers.engines.usage import ResourceUsage
from registry.records import BaseModelInfo

STREAMS = 16
TOKENS = 16
RANK = 8
CROWDED_SHARE = 0.85
"""The least share of 8 adapters' tokens per second that 64 may have on the same places."""

UNEVEN = 3.0
"""The most that a version's p99 to the first token may be of the median version's."""

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")


@dataclass(frozen=True, slots=True)
class AdapterMix:
    """One mix: `adapters` names in turn (0 is the base alone), `requests` in each of its halves."""

    adapters: int
    requests: int

    @property
    def title(self) -> str:
        """Return the cell's name in the figures."""
        return "base only" if not self.adapters else f"{self.adapters} adapter{'s'[: self.adapters > 1]}"


def resident_cells(*, quick: bool) -> list[AdapterMix]:
    """Return the mixes for which every adapter has a slot."""
    if quick:
        return [AdapterMix(count, 16) for count in (0, 1, 16, 64)]
    return [*(AdapterMix(count, 32) for count in (0, 1, 16, 64)), AdapterMix(256, 64)]


def crowded_cells(*, quick: bool) -> list[AdapterMix]:
    """Return the mixes with more adapters than slots, and than places in memory; twice each adapter."""
    return [AdapterMix(count, 16 if quick else max(16, count)) for count in (8, 16, 64)]


async def make_ready(
    arm: EngineArm, folder: Path, base: BaseModelInfo, count: int, ledger: SampleLedger
) -> list[str]:
    """Write `count` adapters, have the server know them, and ask each for a token."""
    names = [f"spread-{index}" for index in range(count)]
    folders = [write_ranked(folder / name, base, seed, RANK, ATTENTION) for seed, name in enumerate(names)]
    began = time.monotonic()
    await arm.publish_all(dict(zip(names, folders, strict=True)))
    asked = [BenchQuestion(name, "Hello", 1, chat=False) for name in names]
    first = await crowd(arm.session, arm.url, asked, streams=4)
    seconds = time.monotonic() - began
    print(f"    {arm.label}: {count} versions ready in {seconds:.0f} s", flush=True)
    ledger.add(LedgerRow(f"{count} versions given to the server and asked once", "s"), [seconds])
    ledger.add(_failed(f"{count} versions asked once"), _failures(first))
    return names


async def measure_cells(
    arm: EngineArm,
    names: Sequence[str],
    cells: Sequence[AdapterMix],
    case: str,
    floor: float | None,
    ledger: SampleLedger,
) -> dict[AdapterMix, list[BenchRun]]:
    """Run every cell twice, forwards and then backwards, after a short warm-up; return both runs of each."""
    await run_cell(arm, names, AdapterMix(0, STREAMS))
    others, runs = [], defaultdict[AdapterMix, list[BenchRun]](list)
    for second, cell in [*((False, cell) for cell in cells), *((True, cell) for cell in reversed(cells))]:
        title, before = f"{case}, {cell.title}", ResourceUsage.now(arm.pid)
        run = await run_cell(arm, names, cell, second=second)
        after = ResourceUsage.now(arm.pid)
        runs[cell].append(run)
        add_run(ledger, title, run, floor)
        cost = 1000 * (after.server - before.server) / max(sum(reply.tokens for reply in run.answered), 1)
        ledger.add(LedgerRow(f"{title}: processor time per token", "ms"), [cost])
        others.append(after.others_share(before))
    ledger.add(LedgerRow(f"{case}: cores used by other work on the machine", "%"), others)
    return runs


def add_crowding(ledger: SampleLedger, case: str, runs: Mapping[AdapterMix, Sequence[BenchRun]]) -> None:
    """Add what the most adapters lose against the fewest, and the worst version against the median one."""
    fewest, most = (choose(runs, key=lambda cell: cell.adapters) for choose in (min, max))
    few, many = (median(run.tokens_per_second for run in runs[cell]) for cell in (fewest, most))
    share = f"{case}: tokens/s of {most.title} over those of {fewest.title}"
    ledger.add(LedgerRow(share, "ratio", least=CROWDED_SHARE), [many / few] if few else [])
    tails = version_tails([reply for run in runs[most] for reply in run.answered])
    worst = f"{case}, {most.title}: p99 to the first token, the worst version over the median one"
    if tails:
        ledger.add(LedgerRow(worst, "ratio", ceiling=UNEVEN), [max(tails) / median(tails)])


def version_tails(replies: Iterable[Reply]) -> list[float]:
    """Return each model's p99 of the seconds to the first token."""
    firsts = defaultdict[str, list[float]](list)
    for reply in replies:
        firsts[reply.model].append(reply.first_token_seconds)
    return [float(np.quantile(values, 0.99)) for values in firsts.values()]


async def run_cell(
    arm: EngineArm, names: Sequence[str], cell: AdapterMix, *, second: bool = False
) -> BenchRun:
    """Ask a cell's requests, 16 at a time; the second half goes on with the next adapters."""
    start = cell.requests if second else 0
    questions = [
        BenchQuestion(
            names[index % cell.adapters] if cell.adapters else arm.base,
            f"Tell me the story number {index}.",
            TOKENS,
        )
        for index in range(start, start + cell.requests)
    ]
    run = await crowd(arm.session, arm.url, questions, streams=STREAMS)
    print(
        f"    {arm.label}: {cell.title}: {run.tokens_per_second:.0f} tok/s, {run.failed} failed", flush=True
    )
    return run


def add_run(ledger: SampleLedger, title: str, run: BenchRun, floor: float | None) -> None:
    """Add what a run says: speed, the two latencies, and how many failed."""
    firsts = [1000 * reply.first_token_seconds for reply in run.answered]
    ledger.add(LedgerRow(f"{title}: tokens/s", "tok/s", floor=floor), [run.tokens_per_second])
    ledger.add(LedgerRow(f"{title}: time to first token", "ms"), firsts)
    ledger.add(LedgerRow(f"{title}: time to first token", "ms", Statistic.P99), firsts)
    ledger.add(
        LedgerRow(f"{title}: time per token", "ms", Statistic.P99),
        [1000 * reply.token_seconds for reply in run.answered],
    )
    ledger.add(_failed(title), _failures(run))


def _failed(title: str) -> LedgerRow:
    return LedgerRow(f"{title}: failed", "requests", Statistic.TOTAL, ceiling=0)


def _failures(run: BenchRun) -> list[float]:
    return [float(not reply.ok) for reply in run.replies]
