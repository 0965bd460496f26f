"""Replicas over one root: is what one is told known to all, and how soon?

It registers an adapter twice, rolls the second version out to half of the sessions, and rolls it back. The
adapter stays in the root afterwards, with its first version as `stable`.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx

SESSIONS = 16
STEP_SECONDS = 1.0
"""What the project promises: a step of a rollout applies on every replica within a second."""

_POLICY = {"name": "verify", "steps": [{"weight": 5_000, "min_units": 1_000_000, "min_seconds": 86_400}]}
_POLL_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class FleetFinding:
    """One promise: whether it is kept, and what was seen."""

    promise: str
    kept: bool
    seen: str


@dataclass(frozen=True, slots=True)
class Fleet:
    """Replicas by their own addresses, without the balancer in front.

    `wardrobe` is the command to use; where it is not given, the one beside this Python, else on the PATH.
    """

    urls: Sequence[str]
    key: str
    adapter: str
    folder: Path
    patience_seconds: float = 120.0
    wardrobe: Sequence[str] = ()

    def check(self) -> Iterator[FleetFinding]:
        """Check one promise after the other; the first that is broken ends it."""
        steps = (self._all_ready, self._registered_once, self._decide_alike, self._step_everywhere)
        for step in steps:
            finding = step()
            yield finding
            if not finding.kept:
                return

    def _all_ready(self) -> FleetFinding:
        away = [url for url in self.urls if _status(f"{url}/readyz") != httpx.codes.OK]
        seen = f"not ready: {', '.join(away)}" if away else f"{len(self.urls)} are"
        return FleetFinding("every replica is ready", not away, seen)

    def _registered_once(self) -> FleetFinding:
        promise = "registered at one replica, served by all"
        for _ in range(2):
            told = self._register()
            if told:
                return FleetFinding(promise, kept=False, seen=told)
        names = [f"{self.adapter}@1", f"{self.adapter}@2"]
        seconds = self._until_all(lambda url: all(self._arm(url, name) for name in names))
        return _timed(promise, seconds, self.patience_seconds)

    def _decide_alike(self) -> FleetFinding:
        promise = "every replica gives a session the same arm"
        body = {"version": 2, "policy": _POLICY}
        started = self._admin(self.urls[0], "POST", f"/rollouts/{self.adapter}", body)
        if started.status_code != httpx.codes.CREATED:
            return FleetFinding(promise, kept=False, seen=started.text[:300])
        if self._until_all(lambda url: self._weight(url) == 5_000) is None:
            return FleetFinding(promise, kept=False, seen="the rollout did not begin everywhere")
        time.sleep(STEP_SECONDS)
        seen = [{self._arm(url, self.adapter, one) for url in self.urls} for one in self._sessions]
        torn, arms = sum(len(found) != 1 for found in seen), set[str]().union(*seen)
        told = f"{len(seen)} sessions, arms {', '.join(sorted(arms))}; {torn} with more than one"
        return FleetFinding(promise, not torn and arms == {"canary", "stable"}, told)

    def _step_everywhere(self) -> FleetFinding:
        promise = "a rollout that is rolled back is back everywhere"
        canary = next(one for one in self._sessions if self._arm(self.urls[0], self.adapter, one) == "canary")
        told = self._admin(self.urls[0], "POST", f"/rollouts/{self.adapter}/abort", {"why": "deploy.verify"})
        if not told.is_success:
            return FleetFinding(promise, kept=False, seen=told.text[:300])
        seconds = self._until_all(lambda url: self._arm(url, self.adapter, canary) == "stable")
        return _timed(promise, seconds, STEP_SECONDS)

    @property
    def _sessions(self) -> list[str]:
        return [f"verify-{number}" for number in range(SESSIONS)]

    def _register(self) -> str:
        command = [*(self.wardrobe or (_wardrobe(),)), "register", self.adapter, str(self.folder)]
        command += ["--allow-duplicate", "--url", self.urls[0], *(("--key", self.key) if self.key else ())]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError as error:
            return f"{command[0]}: {error.strerror}; install wardrobe-llm beside this Python"
        return "" if done.returncode == 0 else done.stderr.strip()[-300:]

    def _until_all(self, holds: Callable[[str], object]) -> float | None:
        """Return after how many seconds `holds` for every replica, None when patience is over."""
        started = time.monotonic()

        def until(url: str) -> float | None:
            while (asked := time.monotonic() - started) < self.patience_seconds:
                if holds(url):
                    # When it was asked, not when it answered: an answer may take longer than a step.
                    return asked
                time.sleep(_POLL_SECONDS)
            return None

        with ThreadPoolExecutor(len(self.urls)) as pool:
            found = list(pool.map(until, self.urls))
        known = [seconds for seconds in found if seconds is not None]
        return max(known) if len(known) == len(found) else None

    def _arm(self, url: str, model: str, session: str = "") -> str:
        """Return the arm that answers one request, empty when none does."""
        body = {"model": model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1}
        headers = {**self._headers, **({"x-session-id": session} if session else {})}
        try:
            answer = httpx.post(f"{url}/v1/chat/completions", json=body, headers=headers, timeout=60)
        except httpx.TransportError:
            return ""
        return str(answer.headers.get("x-wardrobe-arm", "")) if answer.is_success else ""

    def _weight(self, url: str) -> int:
        answer = self._admin(url, "GET", f"/rollouts/{self.adapter}")
        return int(json.loads(answer.text).get("weight", 0)) if answer.is_success else 0

    def _admin(self, url: str, method: str, path: str, body: object = None) -> httpx.Response:
        return httpx.request(method, f"{url}/admin/v1{path}", json=body, headers=self._headers, timeout=60)

    @property
    def _headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.key}"} if self.key else {}


def _wardrobe() -> str:
    beside = Path(sys.executable).with_name("wardrobe")
    return str(beside) if beside.exists() else shutil.which("wardrobe") or "wardrobe"


def _timed(promise: str, seconds: float | None, allowed: float) -> FleetFinding:
    if seconds is None:
        return FleetFinding(promise, kept=False, seen="never")
    return FleetFinding(promise, seconds <= allowed, f"after {seconds:.2f} s (allowed {allowed:g})")


def _status(url: str) -> int:
    try:
        return httpx.get(url, timeout=10).status_code
    except httpx.TransportError:
        return 0
