"""The workers of the drill, and whoever kills them: each at a random moment, with SIGKILL, and begun again.

Owns when which worker was killed, and which job it had in hand then.
"""

from __future__ import annotations

import os
import random
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from loadtests.drills.tuning.trainer import STEP_SECONDS, STEPS
from registry.foreign import python
from registry.tuning.jobs import TuningJobs


@dataclass(frozen=True, slots=True)
class Kill:
    """One killed worker: when (UNIX seconds), and the jobs that it had in hand, with their last entry."""

    at: float
    jobs: Mapping[str, int]


@dataclass
class WorkerCrew:
    """Workers on devices of their own, so that all of them train at once."""

    root: Path
    jobs: TuningJobs
    count: int
    steps: int
    step_seconds: float
    pause_seconds: tuple[float, float]
    seed: int
    kills: list[Kill] = field(default_factory=list)
    _processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def begin(self) -> None:
        """Start them."""
        self._processes = [self._start(number) for number in range(self.count)]

    def work(self, deadline_seconds: float) -> bool:
        """Kill and begin again until every job has ended; tell whether that was before the deadline."""
        dice = random.Random(self.seed)
        deadline = time.monotonic() + deadline_seconds
        while time.monotonic() < deadline:
            until = time.monotonic() + dice.uniform(*self.pause_seconds)
            while time.monotonic() < until:
                if all(job.last().state.final for job in self.jobs.all()):
                    return True
                time.sleep(0.1)
            self._kill(dice.randrange(self.count))
        return False

    def end(self) -> None:
        """End them."""
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.wait(timeout=60)

    def _kill(self, number: int) -> None:
        process = self._processes[number]
        process.kill()
        at = time.time()
        process.wait()
        in_hand = {}
        for job in self.jobs.all():
            last = job.last()
            claim = job.claim_of(last)
            owner = None if claim is None else claim.owner
            if owner is not None and owner.pid == process.pid and not last.state.final:
                in_hand[job.id] = last.seq
        self.kills.append(Kill(at, in_hand))
        self._processes[number] = self._start(number)

    def _start(self, number: int) -> subprocess.Popen[bytes]:
        environment = {**os.environ, STEPS: str(self.steps), STEP_SECONDS: str(self.step_seconds)}
        line = python("-m", "loadtests.drills.tuning.worker", str(self.root), f"cpu:{number}")
        return subprocess.Popen(line, env=environment)
