"""How long a server is away: its first start on a machine, a later one, and after its engine was killed.

A first start has nothing compiled; a later one has what the first has left, also what it went on to compile
while it served. Bare vLLM ends with its engine, so after a kill its user starts it again, which is its later
start.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import httpx

from loadtests.bench.peers.engines.ledger import OURS, LedgerRow, SampleLedger
from loadtests.bench.peers.engines.start import BenchServer, Sizes, running_bare, running_ours
from loadtests.bench.peers.engines.usage import ResourceUsage
from loadtests.live import command_line, descendants
from registry import Registry

COMPILING_SECONDS = 240.0
"""How long a first start may go on to work for the next one."""

IDLE_SHARE = 0.2
"""A server that uses less of one core than this has nothing left to do."""

BACK_SECONDS = 240.0


def starts(
    arm: str, registry: Registry, base: Path, folder: Path, sizes: Sizes, ledger: SampleLedger
) -> None:
    """Start a server twice, the first time without anything compiled; kill the engine of ours' second."""
    for kind in ("first start, nothing compiled", "later start"):
        with _running(arm, registry, base, folder, sizes) as server:
            ledger.add(LedgerRow(kind, "s"), [server.start_seconds])
            print(f"    {arm}: {kind}: {server.start_seconds:.0f} s", flush=True)
            if arm == OURS and kind.startswith("first"):
                waited = until_idle(server.pid)
                ledger.add(LedgerRow("first start: goes on to work for the next one", "s"), [waited])
            elif arm == OURS:
                seconds = back_after_kill(server, registry.base.name)
                ledger.add(LedgerRow("back after kill -9 of the engine", "s"), [seconds])


def until_idle(pid: int, bound_seconds: float = COMPILING_SECONDS, *, look_seconds: float = 3.0) -> float:
    """Wait until a server has nothing to do, `bound_seconds` at most; return the seconds waited."""
    began = time.monotonic()
    while time.monotonic() - began < bound_seconds:
        before = ResourceUsage.now(pid)
        time.sleep(look_seconds)
        if ResourceUsage.now(pid).server - before.server < IDLE_SHARE * look_seconds:
            break
    return time.monotonic() - began


def back_after_kill(server: BenchServer, model: str) -> float:
    """Kill the engine's process, and return the seconds until a request is answered again.

    Raises: TimeoutError: none was in time. RuntimeError: there is no engine.
    """
    found = list(engines(server.pid))
    if not found:
        raise RuntimeError(f"no engine was found below process {server.pid}")
    for pid in found:
        os.kill(pid, signal.SIGKILL)
    began = time.monotonic()
    while time.monotonic() - began < BACK_SECONDS:
        if _answers(server.url, model):
            return time.monotonic() - began
        time.sleep(0.1)
    raise TimeoutError(f"{server.url} did not answer within {BACK_SECONDS:g} s after its engine was killed")


def engines(pid: int) -> Iterator[int]:
    """Yield the processes of vLLM's engine below `pid`."""
    return (one for one in sorted(descendants(pid)) if "EngineCore" in command_line(one))


def _answers(url: str, model: str) -> bool:
    body = {"model": model, "prompt": "Hello", "max_tokens": 1}
    try:
        return httpx.post(f"{url}/v1/completions", json=body, timeout=10).status_code == 200
    except httpx.HTTPError:
        return False


def _running(
    arm: str, registry: Registry, base: Path, folder: Path, sizes: Sizes
) -> AbstractContextManager[BenchServer]:
    log = folder / "server.log"
    if arm == OURS:
        return running_ours(registry, log, sizes, None)
    return running_bare(base, registry.base.name, log, sizes)
