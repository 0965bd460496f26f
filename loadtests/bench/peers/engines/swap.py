"""New versions on a running server: the cold first request, the swap under one name, who else notices."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from loadtests.adapters import write_adapter
from loadtests.bench.peers.engines.arms import EngineArm, Staged
from loadtests.bench.peers.engines.asking import BenchQuestion, BenchRun, Reply, Steady, ask, crowd
from loadtests.bench.peers.engines.ledger import LedgerRow, SampleLedger, Statistic
from registry.records import BaseModelInfo

SMALL_MEGABYTES = 4
LARGE_MEGABYTES = 20
PACE_SECONDS = 0.04
SETTLING_SECONDS = 0.6
USUAL_SECONDS = 1.5
SLOWED = 1.2
"""The most that a request may take because of a swap, of the usual p99."""
PATIENCE_SECONDS = 60.0
OTHERS = 4
OTHERS_TOKENS = 64


async def cold_requests(
    arm: EngineArm, folder: Path, base: BaseModelInfo, count: int, ledger: SampleLedger
) -> None:
    """Time from the first thing that must be done for a version on disk to its first token."""
    for index in range(count):
        name = f"cold-{index}"
        source = write_adapter(folder / name, base, 100 + index, SMALL_MEGABYTES)
        staged = await arm.stage(name, source)
        await asyncio.sleep(SETTLING_SECONDS)
        if not index:
            await _unloaded(arm, staged, ledger)
            continue
        seconds = await _first_token(arm, staged, ledger)
        ledger.add(LedgerRow(f"cold {SMALL_MEGABYTES} MB version: load and first token", "s"), seconds)


async def _first_token(arm: EngineArm, staged: Staged, ledger: SampleLedger) -> list[float]:
    """Return the seconds from what must be done first to the first token; if none came, add a failure."""
    began = time.monotonic()
    await arm.admit(staged)
    reply = await ask(arm.session, arm.url, BenchQuestion(staged.model, "Hello", 1, chat=False))
    failed = LedgerRow("first requests of cold versions: failed", "requests", Statistic.TOTAL, ceiling=0)
    ledger.add(failed, [float(not reply.ok)])
    return [reply.began + reply.first_token_seconds - began] if reply.ok else []


async def _unloaded(arm: EngineArm, staged: Staged, ledger: SampleLedger) -> None:
    """Ask for a version that nobody loaded, and for a name that nobody knows."""
    for what, model in (("a version that nobody loaded", staged.model), ("an unknown name", "nobody")):
        reply = await ask(arm.session, arm.url, BenchQuestion(model, "Hello", 1, chat=False))
        ledger.add(LedgerRow(f"{what} answers", "status"), [reply.status])


async def swaps(arm: EngineArm, folder: Path, base: BaseModelInfo, count: int, ledger: SampleLedger) -> None:
    """Put new versions behind one name while clients ask it at a steady pace, and count who was failed."""
    case = "swap by load_inplace" if "inplace" in arm.label else "swap"
    name = case.replace(" ", "-").replace("_", "-")
    await arm.publish(name, write_adapter(folder / name, base, 200, SMALL_MEGABYTES))
    await _until_answered(arm, name)
    question = BenchQuestion(name, "Hello", 1, chat=False)
    windows = []
    async with Steady(arm.session, arm.url, question, PACE_SECONDS) as steady:
        for index in range(1, count + 1):
            source = write_adapter(folder / f"{name}-{index}", base, 200 + index, SMALL_MEGABYTES)
            staged = await arm.stage(name, source)
            await asyncio.sleep(USUAL_SECONDS)
            began = time.monotonic()
            seconds = await swap_once(arm, staged, steady)
            windows.append((began, began + seconds))
            ledger.add(LedgerRow(f"{case}: to the first answer by the new version", "s"), [seconds])
        await asyncio.sleep(SETTLING_SECONDS)
    failed = [float(not reply.ok) for reply in steady.replies]
    ledger.add(
        LedgerRow(
            f"{case}: failed of a steady 25 requests/s, {count} swaps", "requests", Statistic.TOTAL, ceiling=0
        ),
        failed,
    )
    add_delays(ledger, case, steady.replies, windows)
    after = await crowd(arm.session, arm.url, [BenchQuestion(name, "Tell me.", 32)] * OTHERS, streams=OTHERS)
    ledger.add(
        LedgerRow(f"{case}: {OTHERS} streams of the name afterwards", "tok/s"), [after.tokens_per_second]
    )


def add_delays(
    ledger: SampleLedger, case: str, replies: Sequence[Reply], windows: Sequence[tuple[float, float]]
) -> None:
    """Add how long answers took that a swap met, and the others; windows run to the first new answer."""
    usual: list[float] = []
    met: list[float] = []
    for reply in replies:
        if reply.ok:
            meets = any(reply.ended >= begin and reply.began <= end for begin, end in windows)
            (met if meets else usual).append(1000 * (reply.ended - reply.began))
    ledger.add(LedgerRow(f"{case}: a steady request while nothing is swapped", "ms", Statistic.P99), usual)
    ledger.add(LedgerRow(f"{case}: a steady request that a swap meets", "ms", Statistic.P99), met)
    if usual:
        tail = float(np.quantile(usual, 0.99))
        slowest = LedgerRow(
            f"{case}: slowest request that a swap meets, over the usual p99",
            "ratio",
            Statistic.LARGEST,
            ceiling=SLOWED,
        )
        ledger.add(slowest, [one / tail for one in met])


async def swap_once(arm: EngineArm, staged: Staged, steady: Steady) -> float:
    """Swap, and return the seconds to the end of the first steady reply by the new version."""
    seen = len(steady.replies)
    began = time.monotonic()
    await arm.swap(staged)
    swapped = time.monotonic()
    while time.monotonic() - swapped < PATIENCE_SECONDS:
        news = [reply for reply in steady.replies[seen:] if arm.shows(reply, staged, swapped)]
        if news:
            return min(reply.ended for reply in news) - began
        await asyncio.sleep(0.002)
    raise TimeoutError(f"{arm.label}: {staged.name}: no answer by the new version")


async def others_while_loading(
    arm: EngineArm, folder: Path, base: BaseModelInfo, count: int, ledger: SampleLedger
) -> None:
    """The gaps between the tokens of another adapter's streams while 20 MB versions load, or none does."""
    await arm.publish("tenant", write_adapter(folder / "tenant", base, 300, SMALL_MEGABYTES))
    await _until_answered(arm, "tenant")
    for index in range(count):
        name = f"large-{index}"
        source = write_adapter(folder / name, base, 400 + index, LARGE_MEGABYTES)
        staged = await arm.stage(name, source)
        questions = [
            BenchQuestion("tenant", f"Story {index}.{place}", OTHERS_TOKENS) for place in range(OTHERS)
        ]
        running = asyncio.create_task(crowd(arm.session, arm.url, questions, streams=OTHERS))
        await asyncio.sleep(1.0)
        began = time.monotonic()
        seconds = await _first_token(arm, staged, ledger)
        ended = time.monotonic()
        ledger.add(
            LedgerRow(
                f"cold {LARGE_MEGABYTES} MB version beside {OTHERS} streams: load and first token", "s"
            ),
            seconds,
        )
        _add_gaps(ledger, await running, began, ended)


def _add_gaps(ledger: SampleLedger, others: BenchRun, began: float, ended: float) -> None:
    loading = [1000 * gap for reply in others.replies for gap in reply.gaps(began, ended)]
    quiet = [1000 * gap for reply in others.replies for gap in reply.gaps(0.0, began)]
    title = f"{OTHERS} other streams' time per token"
    ledger.add(LedgerRow(f"{title} while a 20 MB version loads", "ms", Statistic.P99), loading)
    ledger.add(LedgerRow(f"{title} while a 20 MB version loads", "ms"), loading)
    ledger.add(LedgerRow(f"{title} while nothing loads", "ms", Statistic.P99), quiet)


async def _until_answered(arm: EngineArm, name: str) -> None:
    until = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < until:
        if (await ask(arm.session, arm.url, BenchQuestion(name, "Hello", 1, chat=False))).ok:
            return
        await asyncio.sleep(0.05)
    raise TimeoutError(f"{arm.label}: {name} does not answer")
