"""A real server for tests, benchmarks and drills: `wardrobe serve` in its own process, driven by its CLI."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import httpx

if TYPE_CHECKING:
    import openai

BIN = Path(sys.executable).parent
START_SECONDS = 420.0
"""A start takes a minute on two quiet cores, and was seen to take four on busy ones."""


def wardrobe(root: Path, *arguments: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a `wardrobe` command on `root` and return what it printed."""
    command = [str(BIN / "wardrobe"), *map(str, arguments)]
    environment = {**os.environ, "WARDROBE_ROOT": str(root)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if check:
        assert done.returncode == 0, f"{arguments}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


def wardrobe_json(root: Path, *arguments: str | Path) -> Any:
    """Run a `wardrobe` command with --json and return the parsed answer."""
    return json.loads(wardrobe(root, *arguments, "--json").stdout)


def free_port() -> int:
    """Return a port that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def descendants(pid: int) -> set[int]:
    """Return every process below `pid`, by /proc."""
    children: dict[int, set[int]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            stat = (entry / "stat").read_text()
        except OSError:
            continue
        parent = int(stat.rpartition(")")[2].split()[1])
        children.setdefault(parent, set()).add(int(entry.name))
    found: set[int] = set()
    queue = [pid]
    while queue:
        below = children.get(queue.pop(), set()) - found
        found |= below
        queue.extend(below)
    return found


def command_line(pid: int) -> str:
    """Return the command line (or the title that the process gave itself) of `pid`."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def is_alive(pid: int) -> bool:
    """Return True for a process that exists and is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def is_ok(url: str) -> bool:
    """Return whether `url` answers 200 within 5 s."""
    try:
        return httpx.get(url, timeout=5).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


def becomes_ready(process: subprocess.Popen[bytes], url: str, seconds: float = START_SECONDS) -> bool:
    """Wait until `url` answers 200; False when `process` ends, or the time is over."""
    until = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < until:
        if is_ok(url):
            return True
        time.sleep(0.1)
    return False


@dataclass
class Live:
    """A running `wardrobe serve` over `root`."""

    root: Path
    port: int
    process: subprocess.Popen[bytes]
    log: Path
    clients: list[openai.OpenAI] = field(default_factory=list)

    @classmethod
    def start(
        cls,
        root: Path,
        log: Path,
        *options: str,
        environment: dict[str, str] | None = None,
        port: int | None = None,
        cwd: Path | None = None,
    ) -> Self:
        """Start a server, uncompiled unless `environment` says otherwise; `options` are vLLM's own."""
        port = port or free_port()
        command = [str(BIN / "wardrobe"), "--root", str(root), "serve", "--port", str(port), "--", *options]
        with log.open("wb") as file:
            process = subprocess.Popen(
                command,
                stdout=file,
                stderr=subprocess.STDOUT,
                env={"WARDROBE_ENGINE__COMPILE": "off", **os.environ, **(environment or {})},
                cwd=cwd,
            )
        return cls(root, port, process, log)

    @property
    def url(self) -> str:
        """Return the server's address."""
        return f"http://127.0.0.1:{self.port}"

    @classmethod
    @contextlib.contextmanager
    def running(
        cls, root: Path, log: Path, *options: str, environment: dict[str, str] | None = None
    ) -> Iterator[Self]:
        """Start a server, give it once it is ready, and end it."""
        live = cls.start(root, log, *options, environment=environment)
        try:
            live.wait_ready()
            yield live
        finally:
            with contextlib.suppress(subprocess.TimeoutExpired):
                live.stop()
            if live.process.poll() is None:
                live.process.kill()

    def wait_ready(self, seconds: float = START_SECONDS) -> float:
        """Wait until /readyz answers 200 and return how long it took, in seconds."""
        started = time.monotonic()
        ready = becomes_ready(self.process, f"{self.url}/readyz", seconds)
        said = "not ready in time" if self.process.poll() is None else "the server ended"
        assert ready, f"{said}:\n{self.log.read_text()[-4000:]}"
        return time.monotonic() - started

    def client(self, **options: Any) -> openai.OpenAI:
        """Return the official client, without retries of its own; `stop` closes it."""
        import openai

        self.clients.append(
            openai.OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0, timeout=120, **options)
        )
        return self.clients[-1]

    def close_clients(self) -> None:
        """Close the connections of all clients that were given out."""
        while self.clients:
            self.clients.pop().close()

    def children(self, title: str = "") -> list[int]:
        """Return the processes below the launcher whose command line holds `title`."""
        return sorted(pid for pid in descendants(self.process.pid) if title in command_line(pid))

    def stop(self, seconds: float = 60) -> int:
        """Close the clients, send SIGTERM, wait for the end and return the exit code."""
        self.close_clients()
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)
