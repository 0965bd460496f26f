"""The balancers drill: two real replicas over one root behind the Rust vllm-router, or behind Ray Serve.

    python -m loadtests.drills.balancers router
    python -m loadtests.drills.balancers ray

What is registered once must be served by both, and a rollout that is taken back must be back on both
within a second. Then, under streaming load: the engine of one replica is killed (only what it was answering
may fail, and it must come back by itself), and the replicas are restarted one after the other, or the
application is stopped (nothing may fail). The report goes to `bench-results/drill-balancer-NAME.json`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.ray.environment import ray_python
from deploy.verify.fleet import Fleet
from deploy.verify.load import Load
from loadtests.live import BIN, Live, command_line, descendants, free_port, wardrobe
from loadtests.markers import marker_adapters
from registry.store import Registry

OPTIONS = ("--max-model-len", "512", "--max-num-seqs", "4", "--max-loras", "2", "--max-cpu-loras", "4")
REPOSITORY = Path(__file__).resolve().parents[2]
BODY = {"model": "before", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 24}
CLIENTS = 3
PATIENCE_SECONDS = 180.0
# Threads that spin would starve the other replica on a small machine.
QUIET = {"KMP_BLOCKTIME": "0", "OMP_WAIT_POLICY": "passive", "WARDROBE_ENGINE__COMPILE": "off"}


@dataclass(frozen=True, slots=True)
class Stage:
    """Replicas behind a balancer; `restart` replaces them all, or ends them, while requests arrive."""

    url: str
    registry: Registry
    owner: int
    restart: Callable[[Load], None]

    def replicas(self) -> list[str]:
        """Return the addresses of the replicas that live and are ready."""
        return [beat.url for beat, live in self.registry.replicas() if live and beat.state == "ready"]

    def engines(self) -> list[int]:
        """Return the processes of vLLM's engines."""
        return [pid for pid in sorted(descendants(self.owner)) if "EngineCore" in command_line(pid)]


@contextlib.contextmanager
def behind_router(registry: Registry, folder: Path) -> Iterator[Stage]:
    """Run two servers and the Rust router in front of them."""
    lives = [_start(registry.root, folder, number) for number in range(2)]
    port = free_port()
    environment = {
        "PORT": str(port),
        "METRICS_PORT": str(free_port()),
        "VLLM_ROUTER": str(BIN / "vllm-router"),
    }
    with contextlib.ExitStack() as stack:
        stack.callback(lambda: [live.stop() for live in lives])
        for live in lives:
            live.wait_ready()
        router = _spawn(
            [str(REPOSITORY / "deploy/router/start.sh"), *(live.url for live in lives)], folder, environment
        )
        stack.callback(_end, router)

        def restart(load: Load) -> None:
            for number, live in enumerate(lives):
                live.stop()
                lives[number] = _start(registry.root, folder, number, live.port)
                lives[number].wait_ready()
                _until(_more(load, 2 * CLIENTS), "the load goes on")

        yield Stage(f"http://127.0.0.1:{port}", registry, os.getpid(), restart)


@contextlib.contextmanager
def behind_ray(registry: Registry, folder: Path) -> Iterator[Stage]:
    """Run two servers under Ray Serve."""
    port = free_port()
    command = [str(ray_python()), "-m", "deploy.ray", "--root", str(registry.root), "--port", str(port)]
    command += ["--command", str(BIN / "wardrobe"), "--vllm", " ".join(OPTIONS), "--cpus-per-replica", "1"]
    (folder / "home").mkdir()
    paths = {"HOME": str(folder / "home"), "PYTHONPATH": str(REPOSITORY)}
    process = _spawn(command, folder, {**QUIET, **paths})

    def stop(load: Load) -> None:
        _until(_more(load, 1), "the load goes on")
        load.finish()
        process.send_signal(signal.SIGTERM)

    try:
        yield Stage(f"http://127.0.0.1:{port}", registry, process.pid, stop)
    finally:
        _end(process)


BALANCERS = {"router": behind_router, "ray": behind_ray}


def play(name: str, folder: Path, cache: Path) -> dict[str, Any]:
    """Play the drill behind the balancer `name` and return the report."""
    base = cache / "smollm2-135m-instruct"
    wardrobe(cache, "base", "demo", base)
    adapters = marker_adapters(cache, base)
    root = folder / "root"
    wardrobe(root, "init", "--base", base)
    wardrobe(root, "register", "before", adapters["alpha"])
    started = time.monotonic()
    with BALANCERS[name](Registry.open(root), folder) as stage:
        _until(lambda: len(stage.replicas()) == 2, "both replicas are ready")
        report: dict[str, Any] = {"ready_seconds": round(time.monotonic() - started, 1)}
        print(f"both replicas are ready after {report['ready_seconds']} s", flush=True)
        fleet = Fleet(stage.replicas(), "", "verify", adapters["bravo"], wardrobe=[str(BIN / "wardrobe")])
        report["fleet"] = [{"promise": f.promise, "kept": f.kept, "seen": f.seen} for f in fleet.check()]
        print(json.dumps(report["fleet"]), flush=True)
        report["engine_killed"] = _kill_engine(stage)
        print(json.dumps(report["engine_killed"]), flush=True)
        report["restarted"] = _restart(stage)
        print(json.dumps(report["restarted"]), flush=True)
    kept = all(one["kept"] for one in report["fleet"])
    passed = kept and report["engine_killed"]["failed"] <= CLIENTS and not report["restarted"]["failed"]
    return {"passed": passed, "balancer": name, **report}


def _kill_engine(stage: Stage) -> dict[str, Any]:
    engines = stage.engines()
    with Load(stage.url, BODY, clients=CLIENTS) as load:
        _until(_more(load, 2 * CLIENTS), "the load goes on")
        killed = time.monotonic()
        os.kill(engines[0], signal.SIGKILL)
        _until(lambda: len(set(stage.engines()) - {engines[0]}) == 2, "another engine starts")
        _until(lambda: len(_ready(stage)) == 2, "both replicas are ready again")
        back = time.monotonic() - killed
        _until(_more(load, CLIENTS), "the load goes on")
    faults = [stream.fault for stream in load.failed()]
    return {
        "streams": len(load.streams),
        "failed": len(faults),
        "faults": faults,
        "back_seconds": round(back, 1),
    }


def _restart(stage: Stage) -> dict[str, Any]:
    with Load(stage.url, BODY, clients=CLIENTS) as load:
        _until(_more(load, CLIENTS), "the load goes on")
        stage.restart(load)
    return _count(load)


def _count(load: Load) -> dict[str, Any]:
    faults = [stream.fault for stream in load.failed()]
    return {"streams": len(load.streams), "failed": len(faults), "faults": faults}


def _ready(stage: Stage) -> list[str]:
    import httpx

    found = []
    for url in stage.replicas():
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{url}/readyz", timeout=5).status_code == httpx.codes.OK:
                found.append(url)
    return found


def _more(load: Load, count: int) -> Callable[[], bool]:
    goal = len(load.streams) + count
    return lambda: len(load.streams) >= goal


def _until(holds: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        if time.monotonic() > end:
            raise SystemExit(f"error: never came: {what}")
        time.sleep(0.1)


def _start(root: Path, folder: Path, number: int, port: int | None = None) -> Live:
    cores = os.cpu_count() or 1
    environment = {**QUIET, "VLLM_CPU_OMP_THREADS_BIND": str(number % cores)}
    log = folder / f"serve-{number}-{time.monotonic_ns()}.log"
    return Live.start(root, log, *OPTIONS, environment=environment, port=port)


def _spawn(command: list[str], folder: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    with (folder / "balancer.log").open("wb") as log:
        return subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, **environment}
        )


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    process.wait(90)


def main() -> int:
    """Play the drill, write the report, and return 1 when it failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("balancer", choices=sorted(BALANCERS))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="wardrobe-drill-") as folder:
        report = play(options.balancer, Path(folder), REPOSITORY / ".cache")
    target = REPOSITORY / "bench-results" / f"drill-balancer-{options.balancer}.json"
    target.write_text(json.dumps(report, indent=2) + "\n")
    print(f"{'passed' if report['passed'] else 'FAILED'}; {target.relative_to(REPOSITORY)}")
    return 0 if report["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
