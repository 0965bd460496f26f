"""`wrk` as the benchmarks run it: one thread on a core of its own, one chat request of a thousand bytes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass

REQUEST_BYTES = 1000
MARK = b"########"
"""Each request begins a conversation of its own, so that its unit is hashed and kept as in life."""

_SCRIPT = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = {token}
local before, after, n = [==[{before}]==], [==[{after}]==], 0
request = function()
  n = n + 1
  return wrk.format(nil, nil, nil, before .. string.format('%08d', n) .. after)
end
done = function(summary, latency, requests)
  local wrong = summary.errors.status + summary.errors.connect + summary.errors.read
  wrong = wrong + summary.errors.write + summary.errors.timeout
  io.write(string.format('{{"p50":%.1f,"p99":%.1f,"rate":%.1f,"requests":%d,"wrong":%d}}\\n',
    latency:percentile(50), latency:percentile(99), summary.requests / summary.duration * 1e6,
    summary.requests, wrong))
end
"""


@dataclass(frozen=True, slots=True)
class WrkRun:
    """One run of wrk: latencies in microseconds, requests per second, answers, and how many were no 200."""

    p50: float
    p99: float
    rate: float
    requests: int
    wrong: int


def drive(port: int, body: bytes, connections: int, seconds: int, token: str = "") -> WrkRun:
    """Send `body` to the chat route over and over; `MARK` in it stands for the number of the request.

    With `token` as the key, where there is one.

    Raises: subprocess.CalledProcessError: when wrk could not connect at all.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        before, after = body.split(MARK)
        header = json.dumps(f"Bearer {token}") if token else "nil"
        script.write(_SCRIPT.format(before=before.decode(), after=after.decode(), token=header))
        script.flush()
        url = f"http://127.0.0.1:{port}/v1/chat/completions"
        command = [*on_core(1), "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s"]
        command += ["-s", script.name, url]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return WrkRun(**json.loads(output.strip().splitlines()[-1]))


def request_body(model: str, *, stream: bool) -> bytes:
    """Return a chat request of a thousand bytes; `MARK` in the first user's turn stands for its number."""
    messages = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": ""}]
    body = {"model": model, "stream": stream, "max_tokens": 16, "temperature": 0.5, "messages": messages}
    missing = REQUEST_BYTES - len(json.dumps(body, separators=(",", ":")))
    messages[1]["content"] = MARK.decode() + (" plain words" * REQUEST_BYTES)[: missing - len(MARK)]
    return json.dumps(body, separators=(",", ":")).encode()


def on_core(number: int) -> list[str]:
    """Return what pins a command to one core, where there are two to choose from."""
    cores = sorted(os.sched_getaffinity(0))
    return ["taskset", "-c", str(cores[number])] if len(cores) > 1 and shutil.which("taskset") else []
