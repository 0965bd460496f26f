"""Streams that are read to their end, whatever that is, and clients that ask for one after the other.

A stream is whole when it ends with the protocol's closing event and holds no error event; everything
else, a silent end included, is a failure.
"""

from __future__ import annotations

import re
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import httpx

PATIENCE_SECONDS = 120.0
CLOSING = "data: [DONE]\n\n"
_ID = re.compile(r'"id":\s*"(?:chatcmpl-)?([^"]+)"')


@dataclass
class StreamResult:
    """How one stream went: `began` (UNIX time) and took `seconds`.

    `replica` is the answer's header `x-replica`, which only test replicas send.
    """

    session: str = ""
    arm: str = ""
    replica: str = ""
    began: float = 0.0
    status: int = 0
    pieces: int = 0
    text: str = ""
    error: str = ""
    seconds: float = 0.0

    @property
    def id(self) -> str:
        """Return the id in its first piece, as the replica's access log has it; empty where none came."""
        found = _ID.search(self.text)
        return found[1] if found else ""

    @property
    def whole(self) -> bool:
        """Return whether it came to its end."""
        return self.status == httpx.codes.OK and self.text.endswith(CLOSING) and '"error"' not in self.text

    @property
    def fault(self) -> str:
        """Return what was wrong, in a few words; empty for a whole stream."""
        if self.whole:
            return ""
        if self.error or self.status != httpx.codes.OK:
            return self.error or f"status {self.status}"
        return "an error event" if '"error"' in self.text else "no closing event"


def read_stream(url: str, body: Mapping[str, Any], headers: Mapping[str, str]) -> StreamResult:
    """Ask the server at `url` for a chat stream and read it to its end."""
    stream, started = StreamResult(headers.get("x-session-id", ""), began=time.time()), time.monotonic()
    asked = {**body, "stream": True}
    try:
        with (
            httpx.Client(timeout=PATIENCE_SECONDS) as client,
            client.stream("POST", f"{url}/v1/chat/completions", json=asked, headers=dict(headers)) as answer,
        ):
            stream.status = answer.status_code
            stream.replica = answer.headers.get("x-replica", "")
            stream.arm = answer.headers.get("x-wardrobe-arm", "")
            for piece in answer.iter_text():
                stream.pieces += 1
                stream.text += piece
    except httpx.HTTPError as error:
        stream.error = type(error).__name__
    stream.seconds = time.monotonic() - started
    return stream


@dataclass
class LoadRun:
    """Clients, each with sessions of its own, from the beginning of the block to its end.

    A client goes round its `sessions`; where that is 0, every stream is a session of its own.
    """

    url: str
    body: Mapping[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)
    clients: int = 4
    sessions: int = 0
    streams: list[StreamResult] = field(default_factory=list)
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
        self.finish()
        for thread in self._threads:
            thread.join()

    def finish(self) -> None:
        """Begin no request any more; those that run go on."""
        self._stop.set()

    def failed(self) -> list[StreamResult]:
        """Return the streams that were not whole answers."""
        return [stream for stream in list(self.streams) if not stream.whole]

    def by_replica(self) -> Counter[str]:
        """Return how many whole streams each replica sent."""
        return Counter(stream.replica for stream in list(self.streams) if stream.whole)

    def _run(self, number: int) -> None:
        asked = 0
        while not self._stop.is_set():
            asked += 1
            session = f"verify-{number}-{asked % self.sessions if self.sessions else asked}"
            headers = {**self.headers, "x-session-id": session}
            self.streams.append(read_stream(self.url, self.body, headers))
