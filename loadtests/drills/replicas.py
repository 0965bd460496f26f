"""The replicas drill: three real servers over one root decide one rollout together.

    python -m loadtests.drills.replicas

The same session is asked of every server: they must name the same arm. The observed share of the canary
must lie within the binomial interval of each weight, and the log must hold exactly one record per step.
The report goes to `bench-results/drill-replicas.json`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from loadtests.bench.results import write_drill
from loadtests.drills.stages import ONE_THREAD
from loadtests.live import Live, wardrobe, wardrobe_json
from loadtests.markers import marker_root

OPTIONS = ("--max-model-len", "512", "--max-num-seqs", "8", "--max-loras", "2", "--max-cpu-loras", "4")
MODEL = "shared"
SESSIONS_AT_ONCE = 4
SETTLED_SECONDS = 2.0
"""After a record, every server follows within this time; answers in between are not compared."""

POLICY = """\
name: drill
steps:
  - {weight: 20%, min_units: 30, min_seconds: 20}
  - {weight: 50%, min_units: 30, min_seconds: 20}
promotion: {no_harm_units: 60, no_harm_seconds: 10}
guard: {latency_factor: 20}
cooldown_seconds: 5
"""


@dataclass
class ReplicaDrill:
    """The servers and what their answers said."""

    lives: list[Live]
    asked: int = 0
    disagreements: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    by_weight: dict[int, Counter[str]] = field(default_factory=dict)

    async def run(self) -> str:
        """Ask until the rollout has ended; return its last state."""
        async with httpx.AsyncClient(timeout=120) as client:
            while True:
                before = await self._status(client)
                if before["state"] in {"promoted", "closed", "rolled_back"}:
                    return str(before["state"])
                sessions = range(self.asked, self.asked + SESSIONS_AT_ONCE)
                self.asked += SESSIONS_AT_ONCE
                found = await asyncio.gather(*(self._ask_everybody(client, one) for one in sessions))
                after = await self._status(client)
                if (before["weight"], before["state"]) == (after["weight"], after["state"]):
                    for arms in found:
                        self._compare(before, arms)

    def _compare(self, status: dict[str, Any], arms: list[str]) -> None:
        moved = max(decision["at"] for decision in status["decisions"])
        if time.time() - moved < SETTLED_SECONDS or "" in arms:
            return
        self.disagreements += len(set(arms)) > 1
        self.by_weight.setdefault(status["weight"], Counter())[arms[0]] += 1

    async def _status(self, client: httpx.AsyncClient) -> dict[str, Any]:
        answer = await client.get(f"{self.lives[0].url}/admin/v1/rollouts/{MODEL}")
        return dict(answer.raise_for_status().json())

    async def _ask_everybody(self, client: httpx.AsyncClient, session: int) -> list[str]:
        return list(await asyncio.gather(*(self._ask(client, live, session) for live in self.lives)))

    async def _ask(self, client: httpx.AsyncClient, live: Live, session: int) -> str:
        body = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2}
        headers = {"x-session-id": f"session-{session}"}
        answer = await client.post(f"{live.url}/v1/chat/completions", json=body, headers=headers)
        if answer.status_code != httpx.codes.OK:
            self.failures[f"status {answer.status_code}"] += 1
            return ""
        return answer.headers["x-wardrobe-arm"]

    def shares(self) -> dict[str, Any]:
        """Return, by weight, the canary's share and whether it lies within four standard deviations."""
        found: dict[str, Any] = {}
        for weight, arms in sorted(self.by_weight.items()):
            total, expected = arms.total(), weight / 10_000
            spread = 4 * (expected * (1 - expected) / total) ** 0.5
            share = arms["canary"] / total
            found[str(weight)] = {
                "units": total, "canary_share": round(share, 4), "within": abs(share - expected) <= spread,
            }  # fmt: skip
        return found


def play(folder: Path, cache: Path) -> dict[str, Any]:
    """Start the servers one after the other, run the rollout, and return the report."""
    root = folder / "root"
    marker_root(root, cache, {MODEL: ("alpha", "alpha")})
    (folder / "policy.yaml").write_text(POLICY)
    with contextlib.ExitStack() as stack:
        drill = ReplicaDrill([stack.enter_context(_server(root, folder, number)) for number in range(3)])
        wardrobe(root, "rollout", "start", f"{MODEL}@2", "--policy", folder / "policy.yaml")
        ended = asyncio.run(drill.run())
    told = wardrobe_json(root, "rollout", "explain", MODEL)["decisions"]
    events = [entry["event"] for entry in told if entry["event"] != "baseline"]
    shares = drill.shares()
    once = events[:4] == ["start", "loaded", "advance", "promote"]
    passed = ended != "rolled_back" and once and not drill.disagreements and not drill.failures
    return {
        "passed": passed and all(one["within"] for one in shares.values()),
        "ended": ended,
        "units_asked_of_every_server": drill.asked,
        "disagreements": drill.disagreements,
        "failed": dict(drill.failures),
        "shares": shares,
        "log": [f"{entry['event']} by {entry['who']}" for entry in told],
    }


def _server(root: Path, folder: Path, number: int) -> contextlib.AbstractContextManager[Live]:
    """Return a server with one core of its own: threads that spin would starve the others."""
    core = {"VLLM_CPU_OMP_THREADS_BIND": str(number % (os.cpu_count() or 1))}
    environment = {**ONE_THREAD, **core}
    return Live.running(root, folder / f"serve-{number}.log", *OPTIONS, environment=environment)


def main() -> int:
    """Run the drill and return 1 when it failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, default=Path(os.environ.get("WARDROBE_CACHE", ".cache")))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="wardrobe-drill-") as scratch:
        report = play(Path(scratch), options.cache)
    print(json.dumps(report, indent=2), flush=True)
    return write_drill("replicas", report)


if __name__ == "__main__":
    sys.exit(main())
