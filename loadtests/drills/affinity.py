"""Does a request find its adapter resident? Two replicas under Ray Serve, by adapter and at random.

    python -P -m loadtests.drills.affinity [--places 16] [--zipf 1.0]

64 adapters, each asked once before, are asked by Zipf's law in open loop. The replicas have the real router
over a real root and no model: a load takes `--load-seconds`, an answer next to nothing, so the figures are
those of the routing. A request found its adapter if its replica did not load for it (by
`wardrobe_adapter_loads_total`); its first token is the head of its stream. Report:
`bench-results/drill-affinity.json`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx
import numpy as np

from deploy.ray.environment import ray_python
from loadtests.bench.results import write_drill
from loadtests.drills.stages import REPOSITORY
from loadtests.live import free_port
from registry.store import Registry
from tests.fakes.adapters import make_adapter
from tests.fakes.base import make_base

ADAPTERS = 64
LEAST_SHARE, MOST_TAIL = 0.95, 0.6
READY_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class RoutingTrial:
    """What is tried: places of each replica, how often which adapter is asked, and what a load costs."""

    places: int
    zipf: float
    rate: float
    seconds: float
    load_seconds: float
    warm_seconds: float = 10.0

    @property
    def weights(self) -> list[float]:
        """Return how often each adapter is asked, relative to the others."""
        return [rank**-self.zipf for rank in range(1, ADAPTERS + 1)]

    @property
    def ceiling(self) -> float:
        """Return the share that two replicas can hold at most: the most asked on the places of both."""
        weights = self.weights
        return sum(weights[: 2 * self.places]) / sum(weights)


@dataclass(frozen=True, slots=True)
class RoutingResult:
    """What one way of routing did: `resident` is a share of the requests, times are in milliseconds."""

    by_adapter: bool
    requests: int
    failed: int
    resident: float
    first_token_p50: float
    first_token_p99: float


def play(trial: RoutingTrial, folder: Path) -> dict[str, object]:
    """Play both ways of routing, one after the other, and return the report."""
    registry = Registry.init(folder / "root", make_base(folder / "base"), name="tiny")
    for number in range(ADAPTERS):
        registry.publish(name_of(number), make_adapter(folder / "a" / str(number), seed=number), who="drill")
    arms = []
    for by_adapter in (True, False):
        with _application(registry.root, trial, by_adapter=by_adapter) as url:
            arms.append(asyncio.run(_measure(registry, url, trial, by_adapter=by_adapter)))
        print(arms[-1], flush=True)
    ours, anywhere = arms
    tail = ours.first_token_p99 / anywhere.first_token_p99
    return {
        "passed": ours.resident >= LEAST_SHARE and tail <= MOST_TAIL and not ours.failed,
        "trial": asdict(trial),
        "bars": {"resident_at_least": LEAST_SHARE, "tail_at_most": MOST_TAIL},
        "ceiling_of_resident": round(trial.ceiling, 3),
        "tail_against_random": round(tail, 3),
        "arms": [asdict(arm) for arm in arms],
        "limits": "One machine; replicas without a model; a load is a sleep, and the proof beside it.",
    }


def name_of(number: int) -> str:
    """Return the name of an adapter."""
    return f"adapter-{number:03d}"


@contextlib.contextmanager
def _application(root: Path, trial: RoutingTrial, *, by_adapter: bool) -> Iterator[str]:
    port = free_port()
    fake = f"{sys.executable} -m tests.fakes.replica"
    own = f"--capacity {trial.places} --load-seconds {trial.load_seconds}"
    command = [str(ray_python()), "-P", "-m", "deploy.ray", "--root", str(root), "--port", str(port)]
    command += ["--command", fake, f"--vllm={own}", "--cpus-per-replica", "0.1", "--drain-seconds", "2"]
    command.append("--by-adapter" if by_adapter else "--no-by-adapter")
    said = root.parent / f"said-{by_adapter}.txt"
    with said.open("wb") as out:
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
        process = subprocess.Popen(command, cwd=REPOSITORY, env=environment, stdout=out, stderr=out)
    try:
        end = time.monotonic() + READY_SECONDS
        while "ready on" not in said.read_text():
            if process.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"error: Ray does not start: {said.read_text()[-2000:]}")
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(60)


async def _measure(registry: Registry, url: str, trial: RoutingTrial, *, by_adapter: bool) -> RoutingResult:
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, timeout=60, limits=limits) as client:
        for number in range(ADAPTERS):  # the first load of each is nobody's choice
            await _first_token(client, name_of(number))
        await _ask_for(client, trial, trial.warm_seconds, seed=1)
        before = _loads(registry)
        times = await _ask_for(client, trial, trial.seconds, seed=2)
        loads = _loads(registry) - before
    good = [one * 1e3 for one in times if one is not None]
    return RoutingResult(
        by_adapter,
        len(times),
        len(times) - len(good),
        round(1 - loads / len(times), 4),
        round(float(np.quantile(good, 0.5)), 1),
        round(float(np.quantile(good, 0.99)), 1),
    )


async def _ask_for(
    client: httpx.AsyncClient, trial: RoutingTrial, seconds: float, seed: int
) -> list[float | None]:
    chance, asked = random.Random(seed), []
    end = time.monotonic() + seconds
    async with asyncio.TaskGroup() as group:
        while time.monotonic() < end:
            number = chance.choices(range(ADAPTERS), trial.weights)[0]
            asked.append(group.create_task(_first_token(client, name_of(number))))
            await asyncio.sleep(chance.expovariate(trial.rate))
    return [one.result() for one in asked]


async def _first_token(client: httpx.AsyncClient, model: str) -> float | None:
    body = {"model": model, "messages": [{"role": "user", "content": "Hello"}], "stream": True}
    began = time.monotonic()
    try:
        async with client.stream("POST", "/v1/chat/completions", json=body) as answer:
            found = time.monotonic() - began
            await answer.aread()
            return found if answer.status_code == 200 else None
    except httpx.HTTPError:
        return None


def _loads(registry: Registry) -> float:
    """Return how often the living replicas have loaded something."""
    found = 0.0
    for beat, live in registry.replicas():
        if live:
            with contextlib.suppress(httpx.HTTPError):
                lines = httpx.get(f"{beat.url}/metrics", timeout=10).text.splitlines()
                told = (line for line in lines if line.startswith("wardrobe_adapter_loads_total{"))
                found += sum(float(line.rpartition(" ")[2]) for line in told)
    return found


def main() -> int:
    """Play, write the report, and return 1 when a bar was missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--places", type=int, default=16, help="versions that a replica holds (16)")
    parser.add_argument("--zipf", type=float, default=1.0, help="exponent of the law; 0 asks all alike (1.0)")
    parser.add_argument("--rate", type=float, default=20.0, help="requests a second (20)")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--load-seconds", type=float, default=0.15, help="what a load costs (0.15)")
    given = parser.parse_args()
    trial = RoutingTrial(given.places, given.zipf, given.rate, given.seconds, given.load_seconds)
    with tempfile.TemporaryDirectory(prefix="wardrobe-drill-") as folder:
        return write_drill("affinity", play(trial, Path(folder)))


if __name__ == "__main__":
    sys.exit(main())
