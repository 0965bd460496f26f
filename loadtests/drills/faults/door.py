"""Callers who would take the server away from others: heads without end, slow bodies, bodies that cost.

None of them needs a key but the last. Meanwhile users must be answered and /livez must be quick.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import httpx

from loadtests.drills.faults.stage import FaultStage

ATTACK_SECONDS = 10.0
ATTACKERS = 16
GROWTH_MIB = 200.0
LIVEZ_SECONDS = 1.0
MACHINE_FACTOR = 3.0
"""/livez may take this many times as long as without an attack, where the machine is slow already."""


async def door(stage: FaultStage) -> None:
    """Play each attack for `ATTACK_SECONDS` and find what it cost the others."""
    attacks: dict[str, list[Coroutine[Any, Any, None]]] = {
        "no attack": [],
        "heads without end, no key": [_endless_head(stage) for _ in range(ATTACKERS)],
        "connections that say nothing": [_silent(stage) for _ in range(256)],
        "bodies of a byte a second": [_slow_body(stage) for _ in range(2 * ATTACKERS)],
        "bodies of 6 MB in short messages": [_dear_body(stage, _short_messages()) for _ in range(2)],
        "bodies nested 1,000 deep": [_dear_body(stage, b'{"model":' + b"[" * 1000) for _ in range(2)],
        "bodies of 27 MB of keys": [_dear_body(stage, _keys()) for _ in range(2)],
    }
    bar = LIVEZ_SECONDS
    for name, attackers in attacks.items():
        before, began = _memory(stage), time.monotonic()
        livez = asyncio.create_task(_slowest_livez(stage))
        await asyncio.gather(*attackers)
        slowest = await livez
        growth = _memory(stage) - before
        failed = stage.traffic.failures(began, time.monotonic())
        stage.find(f"{name}: users failed", dict(failed) or 0, "none", ok=not failed)
        if not attackers:
            bar = max(LIVEZ_SECONDS, MACHINE_FACTOR * slowest)
        stage.within(f"{name}: slowest /livez", slowest, bar)
        stage.find(
            f"{name}: memory", f"{growth:+.0f} MiB", f"at most +{GROWTH_MIB:g}", ok=growth <= GROWTH_MIB
        )
    await stage.works("keys", "revoke", stage.leaver_id)


async def _slowest_livez(stage: FaultStage) -> float:
    ends, slowest = time.monotonic() + ATTACK_SECONDS, 0.0
    async with httpx.AsyncClient(base_url=stage.live.url, timeout=30) as client:
        while time.monotonic() < ends:
            began = time.monotonic()
            with contextlib.suppress(httpx.HTTPError):
                await client.get("/livez")
            slowest = max(slowest, time.monotonic() - began)
            await asyncio.sleep(0.05)
    return slowest


async def _connect(stage: FaultStage) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", stage.live.port)


async def _endless_head(stage: FaultStage) -> None:
    ends = time.monotonic() + ATTACK_SECONDS
    while time.monotonic() < ends:
        with contextlib.suppress(OSError, TimeoutError):
            _, writer = await _connect(stage)
            writer.write(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n")
            for number in range(10_000):
                writer.write(b"x-%d: " % number + b"y" * 8192 + b"\r\n")
                await asyncio.wait_for(writer.drain(), 2)
                if time.monotonic() > ends or writer.transport.is_closing():
                    break
            writer.transport.abort()
        await asyncio.sleep(0.01)


async def _silent(stage: FaultStage) -> None:
    with contextlib.suppress(OSError):
        _, writer = await _connect(stage)
        await asyncio.sleep(ATTACK_SECONDS)
        writer.transport.abort()


async def _slow_body(stage: FaultStage) -> None:
    with contextlib.suppress(OSError):
        _, writer = await _connect(stage)
        writer.write(
            b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000\r\n"
            b"authorization: Bearer %s\r\ncontent-type: application/json\r\n\r\n" % stage.traffic.key.encode()
        )
        for _ in range(int(ATTACK_SECONDS)):
            writer.write(b" ")
            await asyncio.sleep(1)
        writer.transport.abort()


async def _dear_body(stage: FaultStage, body: bytes) -> None:
    ends = time.monotonic() + ATTACK_SECONDS
    headers = {"authorization": f"Bearer {stage.traffic.key}", "content-type": "application/json"}
    async with httpx.AsyncClient(base_url=stage.live.url, timeout=60, headers=headers) as client:
        while time.monotonic() < ends:
            with contextlib.suppress(httpx.HTTPError):
                await client.post("/v1/chat/completions", content=body)


def _short_messages() -> bytes:
    messages = [{"role": "user", "content": "a"}] * 180_000
    return json.dumps({"model": "door", "max_tokens": 1, "messages": messages}).encode()


def _keys() -> bytes:
    return json.dumps({f"key-{number:012d}": number for number in range(900_000)}).encode()


def _memory(stage: FaultStage) -> float:
    """Return the resident memory of the launcher and the API server, in MiB."""
    total = 0.0
    for pid in (stage.live.process.pid, *stage.live.children("serve.engine.child")):
        with contextlib.suppress(OSError, StopIteration):
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
            total += int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024
    return total
