"""Two real replicas over one root behind a balancer: started, found, replaced and ended.

Each replica writes a line per request to `FOLDER/NAME.jsonl`, so that every stream can be told by its id
which replica answered it. Where nobody restarts a server whose launcher died (behind the router), the stage
does it as `deploy/systemd/wardrobe.service` would.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx

from deploy.ray.environment import ray_python
from loadtests.live import BIN, Live, command_line, descendants, free_port, is_alive, is_ok
from registry.store import Registry

REPLICAS = 2
OPTIONS = ("--max-model-len", "512", "--max-num-seqs", "8", "--max-loras", "4", "--max-cpu-loras", "8")
REPOSITORY = Path(__file__).resolve().parents[2]
PATIENCE_SECONDS = 180.0
RESTART_SECONDS = 10.0
"""RestartSec of the systemd unit."""

ONE_THREAD = {
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
    "KMP_BLOCKTIME": "0",
    "OMP_WAIT_POLICY": "passive",
}
"""One thread to an engine, and none that spins: what else runs on the machine has the other cores."""

ENVIRONMENT = {
    **ONE_THREAD,
    "WARDROBE_ENGINE__COMPILE": "off",
    "WARDROBE_ACCESS_LOG": "true",
    "WARDROBE_LOG_FORMAT": "json",
}


@dataclass(frozen=True, slots=True)
class LoggedAnswer:
    """A line of a replica's access log: the answer's id, when it ended (UNIX time), whether it was whole."""

    id: str
    at: float
    ok: bool


@dataclass(frozen=True, slots=True)
class LiveReplica:
    """A replica that lives and is ready; `server` is the process that answers, the launcher is its parent."""

    name: str
    url: str
    server: int

    @property
    def launcher(self) -> int:
        """Return the launcher's process."""
        return int(Path(f"/proc/{self.server}/stat").read_text().rpartition(")")[2].split()[1])

    @property
    def engine(self) -> int:
        """Return the process of vLLM's engine."""
        return next(pid for pid in sorted(descendants(self.server)) if "EngineCore" in command_line(pid))

    def in_flight(self) -> int:
        """Return how many requests it is answering now."""
        lines = httpx.get(f"{self.url}/metrics", timeout=10).text.splitlines()
        return sum(int(float(x.split()[-1])) for x in lines if x.startswith("wardrobe_inference_inflight{"))


@dataclass(frozen=True, slots=True)
class BalancedStage:
    """Replicas behind a balancer at `url`; `restart` begins to replace all of them, one after the other.

    `supervise` is called while the drill waits, and starts again what nobody else does.
    """

    url: str
    registry: Registry
    folder: Path
    restart: Callable[[], Iterator[None]]
    supervise: Callable[[], None]

    def replicas(self) -> list[LiveReplica]:
        """Return the replicas that live and take requests."""
        return [
            LiveReplica(beat.replica, beat.url, beat.pid)
            for beat, live in self.registry.replicas()
            if live and is_alive(beat.pid) and is_ok(f"{beat.url}/readyz")
        ]

    def answers(self) -> dict[str, list[LoggedAnswer]]:
        """Return by replica every answer that has ended; successors under a router keep their name."""
        found = {}
        for log in self.folder.glob("*.jsonl"):
            lines = [json.loads(line) for line in log.read_text().splitlines()]
            logged = [line for line in lines if line["logger"] == "wardrobe.access"]
            found[log.stem] = [
                LoggedAnswer(line.get("id", ""), line["at"], line.get("outcome") == "ok") for line in logged
            ]
        return found

    def all_answer(self, since: float) -> bool:
        """Return whether every replica is there and has answered somebody since `since` (UNIX time)."""
        answers, replicas = self.answers(), self.replicas()
        heard = [any(a.ok and a.at > since for a in answers.get(one.name, ())) for one in replicas]
        return len(heard) == REPLICAS and all(heard)

    def wait(self, holds: Callable[[], object], what: str) -> None:
        """Wait until `holds()`, supervising.

        Raises: SystemExit: when it never does.
        """
        end = time.monotonic() + PATIENCE_SECONDS
        while not holds():
            if time.monotonic() > end:
                raise SystemExit(f"error: never came: {what}")
            self.supervise()
            time.sleep(0.1)


@contextlib.contextmanager
def behind_router(registry: Registry, folder: Path) -> Iterator[BalancedStage]:
    """Run two servers and the Rust router in front of them."""
    lives = [_start(registry.root, folder, number) for number in range(REPLICAS)]
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
        command = [str(REPOSITORY / "deploy/router/start.sh"), *(live.url for live in lives)]
        stack.callback(_end, _spawn(command, folder, environment))

        def restart() -> Iterator[None]:
            for number, live in enumerate(lives):
                live.stop()
                lives[number] = _start(registry.root, folder, number, live.port)
                yield

        def supervise() -> None:
            for number, live in enumerate(lives):
                if live.process.poll() is not None:
                    time.sleep(RESTART_SECONDS)
                    lives[number] = _start(registry.root, folder, number, live.port)

        yield BalancedStage(f"http://127.0.0.1:{port}", registry, folder, restart, supervise)


@contextlib.contextmanager
def behind_ray(registry: Registry, folder: Path) -> Iterator[BalancedStage]:
    """Run two servers under Ray Serve."""
    port = free_port()
    command = [str(ray_python()), "-P", "-m", "deploy.ray", "--root", str(registry.root), "--port", str(port)]
    command += ["--command", str(_named_log(folder)), "--vllm", shlex.join(OPTIONS)]
    (folder / "home").mkdir()
    paths = {"HOME": str(folder / "home"), "PYTHONPATH": str(REPOSITORY)}
    process = _spawn(command, folder, {**ENVIRONMENT, **paths})

    def restart() -> Iterator[None]:
        process.send_signal(signal.SIGUSR1)
        yield

    def supervise() -> None:
        if process.poll() is not None:
            raise SystemExit(f"error: ray ended:\n{(folder / 'balancer.log').read_text()[-4000:]}")

    try:
        yield BalancedStage(f"http://127.0.0.1:{port}", registry, folder, restart, supervise)
    finally:
        _end(process)


BALANCERS = {"router": behind_router, "ray": behind_ray}


def _start(root: Path, folder: Path, number: int, port: int | None = None) -> Live:
    name = f"r{number}"
    environment = {
        **ENVIRONMENT,
        "WARDROBE_REPLICA": name,
        "WARDROBE_LOG_FILE": str(folder / f"{name}.jsonl"),
    }
    log = folder / f"serve-{number}-{time.monotonic_ns()}.log"
    return Live.start(root, log, *OPTIONS, environment=environment, port=port)


def _named_log(folder: Path) -> Path:
    """Return a command that is `wardrobe` with a log file named for its `--replica`."""
    script = folder / "wardrobe"
    script.write_text(
        "#!/bin/sh\n"
        'for word; do [ "$before" = --replica ] && name=$word; before=$word; done\n'
        f'WARDROBE_LOG_FILE="{folder}/$name.jsonl" exec {BIN / "wardrobe"} "$@"\n'
    )
    script.chmod(0o755)
    return script


def _spawn(command: list[str], folder: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    with (folder / "balancer.log").open("wb") as log:
        return subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, **environment}
        )


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    process.wait(90)
