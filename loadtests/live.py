"""A real server for tests, benchmarks and drills: `wardrobe serve` in its own process, driven by its CLI."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

if TYPE_CHECKING:
    import openai

BIN = Path(sys.executable).parent
START_SECONDS = 240.0


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
    ) -> Live:
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

    def wait_ready(self, seconds: float = START_SECONDS) -> float:
        """Wait until /readyz answers 200 and return how long it took, in seconds."""
        started = time.monotonic()
        while time.monotonic() - started < seconds:
            assert self.process.poll() is None, f"the server ended:\n{self.log.read_text()[-4000:]}"
            try:
                if httpx.get(f"{self.url}/readyz", timeout=5).status_code == 200:
                    return time.monotonic() - started
            except httpx.TransportError:
                pass
            time.sleep(0.25)
        raise AssertionError(f"not ready after {seconds} s:\n{self.log.read_text()[-4000:]}")

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
