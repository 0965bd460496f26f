"""Fake replicas over one root in processes of their own, and clients that say how they were treated."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import httpx

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


@dataclass
class Stream:
    """How one stream went: who sent it, in how many pieces, and whether it came to its end."""

    replica: str = ""
    status: int = 0
    pieces: int = 0
    text: str = ""
    error: str = ""

    @property
    def whole(self) -> bool:
        """Return whether it ended with the protocol's closing event and without an error event."""
        return self.status == 200 and self.text.endswith("data: [DONE]\n\n") and '"error"' not in self.text


def read_stream(url: str, session: str = "", **fields: Any) -> Stream:
    """Read one stream to its end, whatever that is."""
    stream = Stream()
    path, body, headers = f"{url}/v1/chat/completions", question(**fields), _headers(session)
    try:
        with (
            httpx.Client(timeout=PATIENCE) as client,
            client.stream("POST", path, json=body, headers=headers) as answer,
        ):
            stream.status = answer.status_code
            stream.replica = answer.headers.get("x-replica", "")
            for piece in answer.iter_raw():
                stream.pieces += 1
                stream.text += piece.decode()
    except httpx.HTTPError as error:
        stream.error = type(error).__name__
    return stream


@dataclass
class Load:
    """Clients that ask one after the other until told to stop; `streams` holds all that came."""

    url: str
    clients: int = 4
    fields: dict[str, Any] = field(default_factory=lambda: paced(4, 0.05))
    streams: list[Stream] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Self:
        """Begin to ask."""
        self._threads = [threading.Thread(target=self._run, args=(n,)) for n in range(self.clients)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Let every client finish its request."""
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, number: int) -> None:
        asked = 0
        while not self._stop.is_set():
            asked += 1
            self.streams.append(read_stream(self.url, f"client-{number}-{asked}", **self.fields))

    def wait(self, more: int) -> None:
        """Wait until `more` streams have ended from now on."""
        goal = len(self.streams) + more
        wait_until(lambda: len(self.streams) >= goal, f"{goal} streams")

    def failed(self) -> list[Stream]:
        """Return the streams that were no whole answer."""
        return [stream for stream in self.streams if not stream.whole]

    def by_replica(self) -> Counter[str]:
        """Return how many whole streams each replica sent."""
        return Counter(stream.replica for stream in self.streams if stream.whole)
