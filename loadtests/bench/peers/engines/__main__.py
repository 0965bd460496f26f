"""The engines' half: vLLM as its own user runs it against `wardrobe serve`, on the same base and options.

    python -m loadtests.bench.peers.engines [--part PART] [--arm bare|tuned|ours] [--quick]

The arms run one after the other, never side by side: bare, tuned by hand and ours, then the other way round,
each with an engine of its own for every part, and each once the machine is quiet. Writes
bench-results/peers-engines.json and .md when all was measured, prints otherwise; `--rounds 2` repeats
everything in the other order.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from loadtests.bench.peers import page
from loadtests.bench.peers.engines import recovery, reuse, spread, swap
from loadtests.bench.peers.engines.arms import Bare, EngineArm, Ours
from loadtests.bench.peers.engines.ledger import (
    BARE,
    OURS,
    TUNED,
    LedgerRow,
    SampleLedger,
    figures,
    side_by_side,
)
from loadtests.bench.peers.engines.start import BenchServer, Sizes, running_bare, running_ours
from loadtests.bench.peers.engines.usage import QUIET_SECONDS, QUIET_SHARE, ResourceUsage
from loadtests.bench.peers.options import PeerOptions
from loadtests.bench.results import publish
from loadtests.live import wardrobe
from registry import Registry
from registry.records import Limits

ARMS = (BARE, TUNED, OURS)
PARTS = ("resident", "changing", "starts")
RESIDENT, QUICK_RESIDENT, KNOWN = 256, 64, 64
FLOOR = 0.95
"""The least share of bare's tokens per second that ours may have where every adapter is resident."""


@dataclass(frozen=True, slots=True)
class EngineTurn:
    """One part on one arm; every turn has an engine and a root of its own."""

    number: int
    part: str
    arm: str


@dataclass(frozen=True, slots=True)
class EnginePlan:
    """What is run: which parts on which arms, how often, and on which base."""

    base: Path
    cache: Path
    parts: Sequence[str] = PARTS
    arms: Sequence[str] = ARMS
    rounds: int = 1
    quick: bool = False
    keep: Path | None = None

    def turns(self) -> Iterator[EngineTurn]:
        """Yield the turns; the arms' order turns round with every part and every round."""
        for number in range(self.rounds):
            for place, part in enumerate(self.parts):
                order = self.arms if (number + place) % 2 == 0 else tuple(reversed(self.arms))
                yield from (EngineTurn(number, part, arm) for arm in order if self.has(part, arm))

    @staticmethod
    def has(part: str, arm: str) -> bool:
        """Return whether an arm takes part: tuning by hand changes nothing of how vLLM starts."""
        return not (part == "starts" and arm == TUNED)

    @property
    def complete(self) -> bool:
        """Return whether nothing is left out."""
        return set(self.parts) == set(PARTS) and set(self.arms) == set(ARMS) and not self.quick

    def sizes(self, part: str) -> Sizes:
        """Return what the engines of a part are started with."""
        if part != "resident":
            return Sizes(slots=4, resident=8, rank=32)
        count = QUICK_RESIDENT if self.quick else RESIDENT
        return Sizes(slots=count, resident=count, rank=spread.RANK)


def run(options: PeerOptions) -> bool:
    """Measure everything and publish it; return whether all bars held."""
    return execute(EnginePlan(options.cache / "smollm2-135m-instruct", options.cache, quick=options.quick))


def execute(plan: EnginePlan) -> bool:
    """Measure what the plan says; publish it when it is complete, else print it."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no server is left behind
    wardrobe(plan.cache, "base", "demo", plan.base)
    ledgers = {arm: SampleLedger() for arm in ARMS}
    for turn in plan.turns():
        ledgers[turn.arm].extend(_kept(plan, turn) or _measured(plan, turn))
    found = figures(ledgers)
    if plan.complete:
        return publish("peers-engines", found, notes=_notes(plan), summary=side_by_side(ledgers) + "\n")
    print(side_by_side(ledgers))
    return all(figure.reached for figure in found)


def _kept(plan: EnginePlan, turn: EngineTurn) -> SampleLedger | None:
    """Return what an earlier run measured in this turn, if it was kept."""
    path = _place(plan, turn)
    return SampleLedger.from_json(path.read_text()) if path is not None and path.exists() else None


def _measured(plan: EnginePlan, turn: EngineTurn) -> SampleLedger:
    began, ledger = time.monotonic(), SampleLedger()
    print(f"  {turn.part}, {turn.arm}", flush=True)
    suffix = ".partial"
    try:
        waited = asyncio.run(ResourceUsage.when_quiet(os.getpid()))
        ledger.add(LedgerRow(f"{turn.part}: waited for a quiet machine", "s"), [waited])
        with tempfile.TemporaryDirectory(prefix="wardrobe-peers-") as scratch:
            if turn.part == "starts":
                _measure_starts(plan, turn, Path(scratch), ledger)
            else:
                _measure_served(plan, turn, Path(scratch), ledger)
        suffix = ""
    finally:
        _keep(plan, turn, ledger, suffix)
    print(f"  {turn.part}, {turn.arm}: {time.monotonic() - began:.0f} s", flush=True)
    return ledger


def _measure_served(plan: EnginePlan, turn: EngineTurn, folder: Path, ledger: SampleLedger) -> None:
    with _running(plan, turn, folder) as (server, registry):
        ledger.add(LedgerRow(f"start of the server, {turn.part}", "s"), [server.start_seconds])
        print(f"    started in {server.start_seconds:.0f} s", flush=True)
        asyncio.run(_drive(plan, turn, server, registry, ledger))


def _measure_starts(plan: EnginePlan, turn: EngineTurn, folder: Path, ledger: SampleLedger) -> None:
    sizes = plan.sizes(turn.part)
    registry = Registry.init(folder / "root", plan.base.absolute(), limits=Limits(max_lora_rank=sizes.rank))
    recovery.starts(turn.arm, registry, plan.base.absolute(), folder, sizes, ledger)


def _keep(plan: EnginePlan, turn: EngineTurn, ledger: SampleLedger, suffix: str) -> None:
    """Write what was measured; an unfinished turn's file is for the reader and is never taken up again."""
    if path := _place(plan, turn):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_name(path.name + suffix).write_text(ledger.to_json())


def _place(plan: EnginePlan, turn: EngineTurn) -> Path | None:
    if plan.keep is None:
        return None
    quick = "-quick" if plan.quick else ""
    return plan.keep / f"{turn.number}-{turn.part}-{turn.arm}{quick}.json"


@contextmanager
def _running(plan: EnginePlan, turn: EngineTurn, folder: Path) -> Iterator[tuple[BenchServer, Registry]]:
    """Start a server on a root of its own (bare ignores all of it but the base's record)."""
    sizes, log = plan.sizes(turn.part), folder / "server.log"
    limits = Limits(max_lora_rank=sizes.rank)
    registry = Registry.init(folder / "root", plan.base.absolute(), limits=limits)
    if turn.arm == OURS:
        with running_ours(registry, log, sizes, plan.cache) as server:
            yield server, registry
    else:
        tuned, name = turn.arm == TUNED, registry.base.name
        with running_bare(plan.base.absolute(), name, log, sizes, tuned=tuned) as server:
            yield server, registry


async def _drive(
    plan: EnginePlan, turn: EngineTurn, server: BenchServer, registry: Registry, ledger: SampleLedger
) -> None:
    timeout = aiohttp.ClientTimeout(total=300)
    async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as session:
        arm: EngineArm = Ours(server.url, registry, session, server.pid)
        if turn.arm != OURS:
            arm = Bare(server.url, registry.base.name, session, server.pid, tuned=turn.arm == TUNED)
        measure = _resident if turn.part == "resident" else _changing
        await measure(plan, arm, registry, ledger)


async def _resident(plan: EnginePlan, arm: EngineArm, registry: Registry, ledger: SampleLedger) -> None:
    folder, count = registry.root.parent / "made", plan.sizes("resident").slots
    names = await spread.make_ready(arm, folder, registry.base, count, ledger)
    cells = spread.resident_cells(quick=plan.quick)
    await spread.measure_cells(arm, names, cells, f"{count} slots", FLOOR, ledger)


async def _changing(plan: EnginePlan, arm: EngineArm, registry: Registry, ledger: SampleLedger) -> None:
    folder, base, count = registry.root.parent / "made", registry.base, 3 if plan.quick else 5
    await swap.cold_requests(arm, folder, base, count, ledger)
    in_place = [dataclasses.replace(arm, in_place=True)] if isinstance(arm, Bare) and not arm.tuned else []
    for one in (arm, *in_place):
        await swap.swaps(one, folder, base, count, ledger)
        if arm.label != TUNED:
            await reuse.answers_after_overwriting(one, folder, base, ledger)
    await swap.others_while_loading(arm, folder, base, count, ledger)
    names = await spread.make_ready(arm, folder, base, KNOWN, ledger)
    cells = spread.crowded_cells(quick=plan.quick)
    case = "4 slots, 8 in memory"
    runs = await spread.measure_cells(arm, names, cells, case, None, ledger)
    spread.add_crowding(ledger, case, runs)


def _notes(plan: EnginePlan) -> list[str]:
    return [
        f"base {plan.base.name}; {spread.STREAMS} streams, chat, {spread.TOKENS} tokens each",
        f"adapters of the streams: q, k, v, o, rank {spread.RANK}",
        *(f"{part}: {' '.join(plan.sizes(part).options())}, rank {plan.sizes(part).rank}" for part in PARTS),
        "bare: vLLM's API server with runtime loading; its own threads, allocator and LoRA kernels",
        "tuned: the same with ours' threads, tcmalloc and OpenMP; on a CPU vLLM compiles nothing with LoRA",
        "ours: `wardrobe serve` with its defaults; compiled where a C++ compiler is found",
        "the arms ran one after the other, an engine each",
        f"each waited until others used at most {QUIET_SHARE:g} % of the cores, {QUIET_SECONDS:g} s at most",
        "a p99 of fewer than 100 samples is near their maximum; n says how many there are",
        "ours compiles before it serves, the first time on a machine; in `starts` it is left to itself",
        *(["the turns were kept and put together: they may be of several runs"] if plan.keep else []),
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure what was asked for; return 1 when a bar is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    defaults = PeerOptions()
    parser.add_argument("--part", choices=PARTS, help="one part only")
    parser.add_argument("--arm", choices=ARMS, help="one server only")
    parser.add_argument("--rounds", type=int, default=1, help="turns of everything")
    parser.add_argument("--quick", action="store_true", help="fewer requests, 64 slots; nothing is written")
    parser.add_argument("--base", type=Path, default=defaults.cache / "smollm2-135m-instruct")
    parser.add_argument("--keep", type=Path, help="folder for measured turns; what is there is not run again")
    given = parser.parse_args(argv)
    parts, arms = [given.part] if given.part else PARTS, [given.arm] if given.arm else ARMS
    plan = EnginePlan(given.base, defaults.cache, parts, arms, given.rounds, given.quick, given.keep)
    held = execute(plan)
    if plan.complete:
        page.refresh("engines")
    return 0 if held else 1


if __name__ == "__main__":
    sys.exit(main())
