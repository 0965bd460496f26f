"""Asks a server's health endpoints again and again, from a process of its own, and says how long each took.

    python -P -m loadtests.bench.probes URL KEY SECONDS

One thread and one connection per path, so that a slow one delays no other. Prints JSON: path → milliseconds.
"""

from __future__ import annotations

import http.client
import json
import sys
import threading
import time
from collections.abc import Sequence
from urllib.parse import urlsplit

PATHS = ("/livez", "/readyz", "/metrics", "/admin/v1/adapters")
PAUSE_SECONDS = 0.05
FAILED = 10_000.0
"""Milliseconds that a probe without an answer counts for."""


def probe(url: str, path: str, key: str, until: float) -> list[float]:
    """Ask `path` until the clock says `until`, and return the milliseconds of each answer."""
    found: list[float] = []
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)
    headers = {"authorization": f"Bearer {key}"}
    while time.monotonic() < until:
        began = time.monotonic()
        try:
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            answer.read()
            well = answer.status == 200
        except (OSError, http.client.HTTPException):
            connection.close()
            well = False
        found.append(1000 * (time.monotonic() - began) if well else FAILED)
        time.sleep(PAUSE_SECONDS)
    connection.close()
    return found


def main(argv: Sequence[str]) -> None:
    """Probe all paths beside each other, and print what was found."""
    url, key, seconds = argv[0], argv[1], float(argv[2])
    until, found = time.monotonic() + seconds, dict[str, list[float]]()

    def one(path: str) -> None:
        found[path] = probe(url, path, key, until)

    threads = [threading.Thread(target=one, args=(path,)) for path in PATHS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1:])
