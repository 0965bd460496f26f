"""Fake replicas over one root in processes of their own, and clients that say how they were treated."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from deploy.verify import load
from deploy.verify.load import StreamResult

PATIENCE = 30.0


@dataclass
class Replica:
    """A running fake replica."""

    name: str
    url: str
    process: subprocess.Popen[str]

    def kill(self) -> None:
        """End it as a lost machine ends."""
        self.process.kill()
        self.process.wait()

    def drain(self) -> None:
        """Tell it to finish what it has."""
        self.process.send_signal(signal.SIGTERM)


@contextlib.contextmanager
def replicas(root: Path, count: int) -> Iterator[list[Replica]]:
    """Run `count` replicas over `root`; they are ready when the block begins."""
    running: list[Replica] = []
    try:
        running.extend(start_replica(root, f"r{number}") for number in range(count))
        for one in running:
            wait_until(lambda one=one: status(one.url, "/readyz") == 200, f"{one.name} is ready")  # type: ignore[misc]
        yield running
    finally:
        for one in running:
            one.kill()
            assert one.process.stdout is not None
            one.process.stdout.close()


def start_replica(root: Path, name: str, port: int = 0) -> Replica:
    """Start a replica; the caller ends it."""
    command = [sys.executable, "-m", "tests.fakes.replica", "--root", str(root), "serve"]
    process = subprocess.Popen(
        [*command, "--port", str(port), "--replica", name], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    return Replica(name, process.stdout.readline().split()[-1], process)


def status(url: str, path: str) -> int:
    """Return the status of a GET, 0 when nothing answers."""
    try:
        return httpx.get(url + path, timeout=5).status_code
    except httpx.TransportError:
        return 0


def wait_until(condition: Callable[[], object], what: str, seconds: float = PATIENCE) -> None:
    """Wait until `condition()` is true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"never came: {what}"
        time.sleep(0.02)


def chat(url: str, session: str = "", **fields: Any) -> httpx.Response:
    """Ask for one answer."""
    headers = {"x-session-id": session} if session else {}
    return httpx.post(
        url + "/v1/chat/completions", json=question(**fields), headers=headers, timeout=PATIENCE
    )


def _headers(session: str) -> dict[str, str]:
    return {"x-session-id": session} if session else {}


def question(**fields: Any) -> dict[str, Any]:
    """Return the body of a request."""
    return {"model": "support", "messages": [{"role": "user", "content": "Hello"}], **fields}


def paced(words: int, pause: float) -> dict[str, Any]:
    """Return the fields of a request for `words` words, one every `pause` seconds."""
    return {"stream": True, "play": "paced", "words": words, "pause": pause}


def read_stream(url: str, session: str = "", **fields: Any) -> StreamResult:
    """Read one stream to its end, whatever that is."""
    return load.read_stream(url, question(**fields), _headers(session))


@dataclass
class Load(load.LoadRun):
    """Clients that ask for short streams."""

    body: Mapping[str, Any] = field(default_factory=lambda: question(**paced(4, 0.05)))

    def wait(self, more: int) -> None:
        """Wait until `more` streams have ended from now on."""
        goal = len(self.streams) + more
        wait_until(lambda: len(self.streams) >= goal, f"{goal} streams")
