"""A client that writes bytes, for what no HTTP library would send."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer: `headers` by their name in small letters."""

    status: int
    headers: dict[str, str]
    body: bytes

    def error(self) -> dict[str, Any]:
        """Return the error after checking that it has all of its parts."""
        found: dict[str, Any] = json.loads(self.body)["error"]
        assert set(found) == {"message", "type", "param", "code"}
        return found


class RawClient:
    """One connection to a port of this machine, or of `host`."""

    def __init__(self, port: int, *, seconds: float = 10.0, source: str = "") -> None:
        address = (source, 0) if source else None
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=seconds, source_address=address)
        self._seen = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Send bytes; a server that has closed meanwhile is not an error, its answer is still to be read."""
        with contextlib.suppress(OSError):
            self.socket.sendall(data)

    def ask(self, method: str, path: str, headers: Iterable[str] = (), body: bytes = b"") -> Answer:
        """Send a whole request and return its answer."""
        self.send(request(method, path, headers, body))
        return self.answer(headless=method == "HEAD")

    def answer(self, *, headless: bool = False) -> Answer:
        """Return the next answer."""
        while b"\r\n\r\n" not in self._seen:
            self._more()
        head, _, self._seen = self._seen.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        size = 0 if headless else int(headers.get("content-length", "0"))
        while len(self._seen) < size:
            self._more()
        body, self._seen = self._seen[:size], self._seen[size:]
        return Answer(int(first.split(" ")[1]), headers, body)

    def is_closed(self) -> bool:
        """Wait until the server has closed the connection, or return False after this client's time."""
        try:
            while self.socket.recv(65_536):
                pass
        except TimeoutError:
            return False
        except OSError:
            return True
        return True

    def _more(self) -> None:
        received = self.socket.recv(65_536)
        if not received:
            raise ConnectionError(f"closed after {self._seen[:200]!r}")
        self._seen += received


def request(method: str, path: str, headers: Iterable[str] = (), body: bytes = b"") -> bytes:
    """Return the bytes of a request to `localhost`; `headers` with a Host of their own keep it."""
    lines = [f"{method} {path} HTTP/1.1", *headers]
    if not any(line.lower().startswith("host:") for line in lines):
        lines.append("host: localhost")
    if body:
        lines.append(f"content-length: {len(body)}")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body
