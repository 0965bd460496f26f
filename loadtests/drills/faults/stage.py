"""A stage: one running server on its own disk, its users, and what a scene found there.

A finding holds one fact against its bar. Nothing is hidden: a scene passes when all of its findings do.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from loadtests.drills.faults.traffic import CallRecord, FaultTraffic
from loadtests.drills.faults.volume import Volume
from loadtests.live import Live, wardrobe, wardrobe_json

KEYS_SECONDS = 1.0
"""A server knows a new key within this time."""

SETTLE_SECONDS = 3.0

WRITTEN_SECONDS = 10.0
"""Feedback is on the disk within a second, and within six after a fault."""
KEYS_STALE_SECONDS = 15.0
"""The drill's own `keys_stale_seconds`; half of the default, to be done sooner."""


@dataclass(frozen=True, slots=True)
class FaultFinding:
    """One fact: what it is about, what was seen, what it had to be."""

    what: str
    seen: str
    bar: str
    ok: bool


@dataclass(slots=True)
class FaultStage:
    """One scene's server, users and findings."""

    live: Live
    disk: Volume
    admin: str
    adapter: str
    traffic: FaultTraffic
    leaver_id: str
    findings: list[FaultFinding] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    def find(self, what: str, seen: object, bar: str, *, ok: bool) -> None:
        """Keep a finding, and say it."""
        self.findings.append(FaultFinding(what, str(seen), bar, ok))
        print(f"    {'ok  ' if ok else 'MISS'} {what}: {seen} ({bar})", flush=True)

    def within(self, what: str, seconds: float | None, bar: float) -> None:
        """Keep how long something took; None: it never came."""
        seen = "never" if seconds is None else f"{seconds:.1f} s"
        self.find(what, seen, f"within {bar:g} s", ok=seconds is not None and seconds <= bar)

    async def command(self, *arguments: str, root: Path | None = None) -> tuple[int, str, float]:
        """Run `wardrobe` on the root; return its exit code, the last line that it said, and its seconds."""
        began = time.monotonic()
        done = await asyncio.to_thread(wardrobe, root or self.disk.point, *arguments, check=False)
        lines = (done.stderr or done.stdout).strip().splitlines()
        return done.returncode, lines[-1] if lines else "", time.monotonic() - began

    async def works(self, *arguments: str, bar: float = 30.0) -> None:
        """Find that a command does its work."""
        code, said, seconds = await self.command(*arguments)
        seen = f"exit {code} in {seconds:.1f} s" + (f": {said}" if code else "")
        self.find(f"`wardrobe {' '.join(arguments[:2])}`", seen, "exit 0", ok=code == 0 and seconds <= bar)

    async def refuses(self, *arguments: str) -> None:
        """Find that a command says why it cannot, and what to do."""
        code, said, _ = await self.command(*arguments)
        self.find(
            f"`wardrobe {' '.join(arguments[:2])}`", f"exit {code}: {said}", "exit 1, a remedy", ok=code == 1
        )

    async def wait(self, seen: Callable[[], object], seconds: float) -> None:
        """Wait until `seen` returns something true, at most so long."""
        ends = time.monotonic() + seconds
        while time.monotonic() < ends and not seen():  # noqa: ASYNC110
            await asyncio.sleep(0.1)

    async def admin_call(self, method: str, path: str, body: object = None) -> CallRecord:
        """Call the admin API with the admin's key."""
        began = time.monotonic()
        headers = {"authorization": f"Bearer {self.admin}"}
        async with httpx.AsyncClient(base_url=self.live.url, timeout=60, headers=headers) as client:
            try:
                answer = await client.request(method, path, json=body)
            except httpx.HTTPError as error:
                return CallRecord(began, time.monotonic(), 0, type(error).__name__)
        return CallRecord(began, time.monotonic(), answer.status_code)

    async def check_kept(self) -> None:
        """Find every rating that was answered 202 in the root: nothing that was promised is lost."""
        promised = len(self.traffic.kept)
        await self.wait(lambda: len(self._kept()) == promised, WRITTEN_SECONDS)
        found = self._kept()
        self.find(
            "ratings answered 202 and kept", f"{len(found)} of {promised}", "all", ok=len(found) == promised
        )

    def _kept(self) -> set[str]:
        texts = [path.read_text() for path in (self.disk.store / "feedback").rglob("*.jsonl")]
        return {note for note in self.traffic.kept if any(f'"{note}"' in text for text in texts)}

    def report(self) -> dict[str, Any]:
        """Return what was found and what /readyz said, in seconds from the scene's begin."""
        looks = [
            {
                "after": round(look.at - self.began, 1),
                "status": look.status,
                "word": look.word,
                "why": look.why,
            }
            for look in self.traffic.looks
        ]
        return {
            "passed": all(one.ok for one in self.findings) and bool(self.findings),
            "seconds": round(time.monotonic() - self.began, 1),
            "requests": len(self.traffic.asked),
            "heard": {str(code): n for code, n in self.traffic.failures(0.0, float("inf")).items()},
            "findings": [
                {"what": one.what, "seen": one.seen, "bar": one.bar, "ok": one.ok} for one in self.findings
            ],
            "readyz": looks,
        }


async def play(
    scene: Callable[[FaultStage], Awaitable[None]], live: Live, disk: Volume, admin: str, adapter: str
) -> dict[str, Any]:
    """Play `scene` under traffic and return its report."""
    user = await asyncio.to_thread(wardrobe_json, disk.point, "keys", "create", "--note", "user")
    leaver = await asyncio.to_thread(wardrobe_json, disk.point, "keys", "create", "--note", "leaver")
    traffic = FaultTraffic(live.url, adapter, user["token"], leaver["token"])
    stage = FaultStage(live, disk, admin, adapter, traffic, leaver["id"])
    await asyncio.sleep(KEYS_SECONDS)
    running = asyncio.create_task(traffic.run())
    try:
        await stage.wait(lambda: len(traffic.asked) >= 8, 60)
        heard = dict(traffic.failures(0.0, time.monotonic()))
        stage.find("answers before", heard or "all", "all", ok=not heard and len(traffic.asked) >= 8)
        await scene(stage)
        await asyncio.sleep(SETTLE_SECONDS)
    finally:
        traffic.stop.set()
        await running
    await stage.check_kept()
    hung = sum(one.ended - one.began >= 85 for one in traffic.asked)
    stage.find("calls that hung", hung, "none", ok=not hung)
    return stage.report()
