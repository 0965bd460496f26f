"""The rollout drill: every way in which a canary rollout can go, on one real server under real traffic.

    python -m loadtests.drills.rollouts [--scenes aa,good,broken,feedback,format,abort,kill]

Each scene has an adapter of its own. It passes when the rollout ends as it must and no user's request
failed that was not killed on purpose. The report goes to `bench-results/drill-rollouts.json`, where scenes
that were not played this time keep their last one.
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
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from loadtests.drills.conversations import Conversations
from loadtests.live import Live, wardrobe, wardrobe_json
from loadtests.markers import MARKERS, marker_adapters, marker_of

OPTIONS = ("--max-model-len", "2048", "--max-num-seqs", "16", "--max-loras", "4", "--max-cpu-loras", "8")
SCENE_SECONDS = 420.0
SYSTEM = "You are a careful assistant of a large company. " * 50
"""About 500 tokens that every conversation of the A/A scene begins with."""

POLICY = """\
name: drill
steps:
  - {weight: 5%, min_units: 30, min_seconds: 5, max_seconds: 3600}
  - {weight: 25%, min_units: 60, min_seconds: 5, max_seconds: 3600}
  - {weight: 100%}
promotion: {no_harm_units: 100, no_harm_seconds: 10}
guard: {window_seconds: 20, min_requests: 30, latency_factor: 10}
preload_seconds: 120
recovery_seconds: 20
cooldown_seconds: 10
"""
FORM = 'metrics: {format: {kind: regex, pattern: "ALPHA"}}\n'


@dataclass
class Scene:
    """One rollout under traffic: what it was to come to, and what came."""

    live: Live
    adapter: str
    talk: Conversations
    seen: list[dict[str, Any]] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    async def command(self, *arguments: str) -> Any:
        """Run a `wardrobe rollout` command on the root and return its JSON."""
        return await asyncio.to_thread(wardrobe_json, self.live.root, "rollout", *arguments)

    async def status(self) -> dict[str, Any]:
        """Return the rollout's status over HTTP: a process per look would cost the traffic its cores."""
        async with httpx.AsyncClient(timeout=60) as client:
            answer = await client.get(f"{self.live.url}/admin/v1/rollouts/{self.adapter}")
            return dict(answer.raise_for_status().json())

    async def start(self, version: int, policy: Path) -> None:
        """Start the rollout."""
        self.facts["began"] = time.monotonic()
        await self.command("start", f"{self.adapter}@{version}", "--policy", str(policy))

    async def follow(self, until: Callable[[dict[str, Any]], bool], seconds: float = SCENE_SECONDS) -> bool:
        """Look at the status until it is as wanted; keep every change; False when the time is over."""
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            status = await self.status()
            row = {name: status[name] for name in ("state", "weight", "step", "reason")}
            if not self.seen or self.seen[-1]["row"] != row:
                after = round(time.monotonic() - self.facts["began"], 1)
                self.seen.append({"after": after, "row": row, "sentence": status.get("sentence", "")})
                print(f"  {self.adapter:9s} {after:6.1f} s  {row}  {status.get('sentence', '')}", flush=True)
            if until(status):
                return True
            await asyncio.sleep(0.3)
        return False

    async def reach(self, *states: str) -> bool:
        """Wait until the rollout is in one of `states`."""
        return await self.follow(lambda status: status["state"] in states)

    def report(self, *, passed: bool) -> dict[str, Any]:
        """Return what happened."""
        failures = dict(self.talk.failures())
        wrong = sum(
            not one.error and self.facts.get("markers", {}).get(one.model) not in {None, marker_of(one.text)}
            for one in self.talk.said
        )
        facts = {name: value for name, value in self.facts.items() if name not in {"began", "markers"}}
        return {
            "passed": passed and not failures and not wrong,
            "requests": len(self.talk.said),
            "failed_requests": failures,
            "wrong_answers": wrong,
            "answers": dict(self.talk.models()),
            "ratings": self.talk.rated,
            **facts,
            "changes": self.seen,
        }


@dataclass
class RolloutDrill:
    """The server, the marker adapters, and the scenes."""

    live: Live
    adapters: dict[str, Path]
    folder: Path

    async def play(self, name: str) -> dict[str, Any]:
        """Play one scene under its traffic and return its report."""
        scenes: dict[str, Callable[[Scene], Awaitable[bool]]] = {
            "aa": self._same, "good": self._good, "broken": self._broken, "feedback": self._feedback,
            "format": self._format, "abort": self._abort, "kill": self._kill,
        }  # fmt: skip
        print(f"scene {name}", flush=True)
        talk = Conversations(self.live.url, name)
        scene = Scene(self.live, name, talk)
        self._register(name, "alpha")
        self._register(name, "bravo" if name in {"feedback", "format"} else "alpha")
        markers = ("ALPHA", "BRAVO" if name in {"feedback", "format"} else "ALPHA")
        scene.facts["markers"] = {f"{name}@{number}": one for number, one in enumerate(markers, 1)}
        if name == "aa":
            talk.system, talk.turns, talk.max_tokens = SYSTEM, 3, 8
        if name == "feedback":
            talk.rate = lambda text: 0.9 if MARKERS["alpha"] in text else 0.2
        running = asyncio.create_task(talk.run())
        try:
            await asyncio.sleep(15)  # so that stable has a baseline
            passed = await scenes[name](scene)
        finally:
            talk.stop.set()
            await running
        return scene.report(passed=passed)

    def _register(self, name: str, marker: str) -> None:
        wardrobe(self.live.root, "register", name, self.adapters[marker], "--allow-duplicate")

    def _policy(self, name: str, text: str = POLICY) -> Path:
        path = self.folder / f"{name}.yaml"
        path.write_text(text)
        return path

    async def _same(self, scene: Scene) -> bool:
        await scene.start(2, self._policy("aa"))
        return await scene.reach("promoted", "rolled_back") and scene.seen[-1]["row"]["state"] == "promoted"

    async def _good(self, scene: Scene) -> bool:
        await scene.start(2, self._policy("good"))
        promoted = await scene.reach("promoted", "rolled_back")
        scene.facts["seconds_to_promoted"] = round(time.monotonic() - scene.facts["began"], 1)
        closed = await scene.reach("closed", "rolled_back")
        weights = [change["row"]["weight"] for change in scene.seen]
        shown = await asyncio.to_thread(wardrobe_json, self.live.root, "show", scene.adapter)
        scene.facts["stable_after"] = shown["aliases"]["stable"]
        right = shown["aliases"]["stable"] == 2 and [one for one in weights if one][:3] == [500, 2500, 10_000]
        return promoted and closed and right

    async def _broken(self, scene: Scene) -> bool:
        weights = self.live.root / "adapters" / scene.adapter / "versions/2/adapter_model.safetensors"
        weights.chmod(0o600)
        with weights.open("r+b") as file:
            file.seek(-3, 2)
            file.write(b"\x7f\x7f\x7f")
        await scene.start(2, self._policy("broken"))
        done = await scene.reach("rolled_back", "promoted")
        scene.facts["seconds_to_rolled_back"] = round(time.monotonic() - scene.facts["began"], 1)
        await asyncio.sleep(3)
        only = set(scene.talk.models()) == {f"{scene.adapter}@1"}
        return done and only and scene.seen[-1]["row"]["state"] == "rolled_back"

    async def _feedback(self, scene: Scene) -> bool:
        await scene.start(2, self._policy("feedback"))
        return await self._taken_back(scene, "feedback")

    async def _format(self, scene: Scene) -> bool:
        await scene.start(2, self._policy("format", POLICY + FORM))
        return await self._taken_back(scene, "format")

    async def _taken_back(self, scene: Scene, reason: str) -> bool:
        done = await scene.reach("rolled_back", "promoted")
        scene.facts["seconds_to_rolled_back"] = round(time.monotonic() - scene.facts["began"], 1)
        scene.facts["canary_answers"] = scene.talk.models()[f"{scene.adapter}@2"]
        status = await scene.status()
        return done and status["state"] == "rolled_back" and status["reason"] == reason

    async def _abort(self, scene: Scene) -> bool:
        await scene.start(2, self._policy("abort"))
        await scene.follow(lambda status: status["weight"] == 2500)
        await asyncio.sleep(4)
        asked = time.monotonic()
        await scene.command("abort", scene.adapter, "--why", "drill")
        told = time.monotonic()
        await asyncio.sleep(8)
        late = [one.began - told for one in scene.talk.said if one.model == f"{scene.adapter}@2"]
        scene.facts["abort_command_seconds"] = round(told - asked, 2)
        scene.facts["last_canary_request_seconds_after_abort"] = round(max(late, default=-1.0), 3)
        await scene.reach("rolled_back")
        return len(late) > 0 and max(late) <= 1.0

    async def _kill(self, scene: Scene) -> bool:
        await scene.start(2, self._policy("kill"))
        await scene.follow(lambda status: status["weight"] == 2500)
        before = await scene.status()
        scene.talk.down = True
        os.kill(self.live.children("serve.engine.child")[0], signal.SIGKILL)
        await asyncio.sleep(2)
        scene.facts["restart_seconds"] = round(2 + await asyncio.to_thread(self.live.wait_ready), 1)
        scene.talk.down = False
        after = await scene.status()
        scene.facts["same_rollout"] = before["rollout"] == after["rollout"]
        scene.facts["step_before_after"] = [before["step"], after["step"]]
        kept = before["rollout"] == after["rollout"] and after["step"] >= before["step"]
        return (
            kept
            and await scene.reach("promoted", "rolled_back")
            and scene.seen[-1]["row"]["state"] == "promoted"
        )


SCENES = ("good", "broken", "feedback", "format", "abort", "aa", "kill")


def main() -> int:
    """Run the drill and return 1 when a scene failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", default=",".join(SCENES))
    parser.add_argument("--cache", type=Path, default=Path(os.environ.get("WARDROBE_CACHE", ".cache")))
    options = parser.parse_args()
    reports: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="wardrobe-drill-") as scratch:
        folder = Path(scratch)
        base = options.cache / "smollm2-135m-instruct"
        wardrobe(options.cache, "base", "demo", base)
        adapters = marker_adapters(options.cache, base)
        wardrobe(folder / "root", "init", "--base", base)
        live = Live.start(folder / "root", folder / "serve.log", *OPTIONS)
        try:
            live.wait_ready()
            drill = RolloutDrill(live, adapters, folder)
            for name in options.scenes.split(","):
                reports[name] = asyncio.run(drill.play(name))
                print(json.dumps({name: {**reports[name], "changes": "…"}}), flush=True)
        finally:
            live.stop()
            print((folder / "serve.log").read_text()[-3000:] if not _passed(reports) else "", end="")
    target = Path("bench-results/drill-rollouts.json")
    target.parent.mkdir(exist_ok=True)
    known = json.loads(target.read_text()) if target.exists() else {}
    target.write_text(json.dumps({**known, **reports}, indent=2) + "\n")
    return 0 if _passed(reports) else 1


def _passed(reports: dict[str, Any]) -> bool:
    return bool(reports) and all(report["passed"] for report in reports.values())


if __name__ == "__main__":
    sys.exit(main())
