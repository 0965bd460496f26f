"""The command of the drill: begun, killed with all that it started, and begun again with the same words.

Owns what was kept at each kill: what is there then must never be fetched or asked again.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loadtests.live import descendants, is_alive
from registry.foreign import python
from registry.store import Registry
from train.jobs.store import Jobs
from train.migrating.folder import MigratedJob, MigrationFolder
from train.migrating.recording import recorded

_DEATH_SECONDS = 5.0
KEY = "OPENAI_API_KEY"
THREADS = "OMP_NUM_THREADS"
"""One, unless told otherwise: a second saves a fifth on a quiet machine, and costs much on a busy one."""


@dataclass(frozen=True, slots=True)
class CommandKill:
    """One kill: when (UNIX seconds), during what, what was kept, and processes that outlived it."""

    at: float
    during: str
    files: frozenset[str]
    questions: frozenset[tuple[str, str]]
    left_behind: int


@dataclass
class MigrationCommand:
    """`wardrobe migrate openai` with one command line; what it says on stderr goes to `log`."""

    url: str
    key: str
    out: Path
    root: Path
    log: Path
    more: tuple[str, ...] = ("--train",)
    kills: list[CommandKill] = field(default_factory=list)

    @property
    def line(self) -> list[str]:
        """Return the command line."""
        return python(
            "-m", "wardrobe_llm", "migrate", "openai", "--base-url", f"{self.url}/v1", "--out", str(self.out),
            "--root", str(self.root), "--json", *self.more,
        )  # fmt: skip

    @contextlib.contextmanager
    def started(self) -> Iterator[subprocess.Popen[str]]:
        """Give the command while it runs, in a process group of its own."""
        with self.log.open("ab") as told:
            process = subprocess.Popen(
                self.line, env={THREADS: "1", **os.environ, KEY: self.key}, stdout=subprocess.PIPE,
                stderr=told, text=True, start_new_session=True,
            )  # fmt: skip
        try:
            yield process
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()

    def kill_after(self, seconds: float) -> bool:
        """Start it and kill its process group after a time; tell whether it was still at work then."""
        with self.started() as process:
            try:
                process.wait(seconds)
            except subprocess.TimeoutExpired:
                pass
            else:
                return False
            below = descendants(process.pid)
            os.killpg(process.pid, signal.SIGKILL)
            at = time.time()
            process.wait()
            left = _end(below)
            self.kills.append(self._looked_at(at, left))
            return True

    def finish(self) -> tuple[int, dict[str, Any]]:
        """Run it to its end; return its exit code and its report."""
        with self.started() as process:
            out, _ = process.communicate()
            code = process.returncode
        return code, json.loads(out) if out else {}

    def _looked_at(self, at: float, left: int) -> CommandKill:
        """Tell what is in the folder now."""
        folder = MigrationFolder(self.out)
        files = {path.stem for path in (self.out / "files").glob("*") if not path.name.startswith(".")}
        asked: set[tuple[str, str]] = set()
        during = "listing"
        for document in sorted(folder.jobs(), key=lambda one: (one["created_at"], one["id"])):
            job = folder.job(str(document["id"]))
            known = recorded(job)
            items = {str(item["id"]): item["messages"][-1]["content"] for item in job.rows(job.items)}
            asked |= {(str(document["fine_tuned_model"]), items[name]) for name in known}
            if during in {"listing", "done"}:
                during = _stage(job, len(known) < len(items), self.root)
        return CommandKill(at, during, frozenset(files), frozenset(asked), left)


def _stage(job: MigratedJob, asking: bool, root: Path) -> str:
    """Tell what was under way in a job; `done` where nothing was left of it."""
    if not job.items.exists():
        return "fetching"
    if asking:
        return "recording"
    if job.record("verdict") is not None:
        return "done"
    if job.record("version") is not None:
        return "judging"
    trained = Jobs(Registry.open(root).root).known(f"migrate-{job.id}")
    if trained is None:
        return "before a training"
    kept = trained.steps_kept
    return f"training, {kept[-1] if kept else 0} steps kept"


def _end(pids: set[int]) -> int:
    """Wait until all of them are dead, kill those that are not, and return how many these were."""
    until = time.monotonic() + _DEATH_SECONDS
    while time.monotonic() < until and any(map(is_alive, pids)):
        time.sleep(0.05)
    left = [pid for pid in pids if is_alive(pid)]
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return len(left)
