"""The churn drill: traffic, swaps, new versions, deletions and kills on one real server, for minutes.

    python -m loadtests.drills.churn --minutes 10

Every answer is judged by its text. It passes when no answer came from a wrong version, no connection was
refused, and nothing failed outside the seconds in which the engine had been killed on purpose. The report
goes to `bench-results/drill-churn.json`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from loadtests.drills.traffic import MODEL, DrillTraffic
from loadtests.live import Live, is_alive, wardrobe, wardrobe_json
from loadtests.markers import MARKERS, marker_adapters

OPTIONS = ("--max-model-len", "1024", "--max-num-seqs", "16", "--max-loras", "4", "--max-cpu-loras", "6")
SWAP_SECONDS = 3.0
KILL_EVERY_SECONDS = 150.0
NEW_VERSION_EVERY = 4
KEPT_VERSIONS = 4


@dataclass
class Churn:
    """One drill: the server, its traffic, and what was done to it."""

    live: Live
    traffic: DrillTraffic
    adapters: dict[str, Path]
    seconds: float
    done: Counter[str] = field(default_factory=Counter)
    restarts: list[float] = field(default_factory=list)
    left: list[int] = field(default_factory=list)

    async def run(self) -> None:
        """Change things until the time is over, under traffic all the while."""
        clients = asyncio.create_task(self.traffic.run())
        ends = time.monotonic() + self.seconds
        kill_at = time.monotonic() + KILL_EVERY_SECONDS / 2
        while time.monotonic() < ends:
            await asyncio.sleep(SWAP_SECONDS)
            if time.monotonic() >= kill_at:
                await self._kill()
                kill_at = time.monotonic() + KILL_EVERY_SECONDS
            await self._change()
        self.traffic.stop.set()
        await clients

    async def _change(self) -> None:
        if self.done["promote"] % NEW_VERSION_EVERY == NEW_VERSION_EVERY - 1:
            await self._new_version()
        versions = [entry["version"] for entry in await self._versions()]
        target = versions[self.done["promote"] % len(versions)]
        await asyncio.to_thread(wardrobe, self.live.root, "promote", f"{MODEL}@{target}")
        self.done["promote"] += 1

    async def _new_version(self) -> None:
        name = list(MARKERS)[self.done["register"] % 2]
        options = ("--allow-duplicate", "--no-stable")
        made = await asyncio.to_thread(
            wardrobe_json, self.live.root, "register", MODEL, self.adapters[name], *options
        )
        self.traffic.expected[f"{MODEL}@{made['version']}"] = MARKERS[name]
        self.done["register"] += 1
        versions = await self._versions()
        idle = [entry["version"] for entry in versions[:-KEPT_VERSIONS] if not entry["aliases"]]
        for number in idle:
            await asyncio.to_thread(wardrobe, self.live.root, "delete", f"{MODEL}@{number}")
            self.done["delete"] += 1

    async def _versions(self) -> list[dict[str, object]]:
        shown = await asyncio.to_thread(wardrobe_json, self.live.root, "show", MODEL)
        return list(shown["versions"])

    async def _kill(self) -> None:
        victim = ("EngineCore", "serve.engine.child")[self.done["kill -9"] % 2]
        processes = self.live.children()
        self.traffic.down = True
        began = time.monotonic()
        os.kill(self.live.children(victim)[0], signal.SIGKILL)
        self.done["kill -9"] += 1
        await asyncio.sleep(2)
        await asyncio.to_thread(self.live.wait_ready)
        self.restarts.append(round(time.monotonic() - began, 1))
        self.left += [pid for pid in processes if is_alive(pid)]
        self.traffic.down = False

    def report(self) -> dict[str, object]:
        """Return everything that was done and seen; `passed` tells the verdict."""
        tally = self.traffic.tally
        return {
            "passed": not tally.wrong and not tally.failed and not self.left and tally.ok > 0,
            "seconds": self.seconds,
            "answers_right": tally.ok,
            "answers_wrong": tally.wrong,
            "failed": dict(tally.failed),
            "failed_while_killed": dict(tally.while_down),
            "done": dict(self.done),
            "restart_seconds": self.restarts,
            "processes_left": self.left,
            "problems": tally.problems,
        }


def prepare(folder: Path, cache: Path) -> tuple[Path, dict[str, Path]]:
    """Make a root with two versions of one adapter; return it and the marker adapters."""
    base = cache / "smollm2-135m-instruct"
    wardrobe(cache, "base", "demo", base)
    adapters = marker_adapters(cache, base)
    root = folder / "root"
    wardrobe(root, "init", "--base", base)
    for name in MARKERS:
        wardrobe(root, "register", MODEL, adapters[name])
    return root, adapters


def main() -> int:
    """Run the drill and return 1 when it failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--cache", type=Path, default=Path(os.environ.get("WARDROBE_CACHE", ".cache")))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="wardrobe-drill-") as scratch:
        root, adapters = prepare(Path(scratch), options.cache)
        live = Live.start(root, Path(scratch) / "serve.log", *OPTIONS)
        try:
            live.wait_ready()
            expected = {f"{MODEL}@{number}": marker for number, marker in enumerate(MARKERS.values(), 1)}
            churn = Churn(live, DrillTraffic(live.url, expected), adapters, options.minutes * 60)
            asyncio.run(churn.run())
            report = churn.report()
            report["metrics"] = _loads(live)
        finally:
            live.stop()
    target = Path("bench-results/drill-churn.json")
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2), flush=True)
    return 0 if report["passed"] else 1


def _loads(live: Live) -> list[str]:
    lines = httpx.get(f"{live.url}/metrics", timeout=30).text.splitlines()
    wanted = ("wardrobe_adapter_loads_total", "wardrobe_adapter_evictions_total")
    return [line for line in lines if line.startswith(wanted)]


if __name__ == "__main__":
    sys.exit(main())
