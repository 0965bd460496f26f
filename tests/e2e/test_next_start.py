"""The end of a server: SIGTERM finishes what is in flight; kill -9 of the launcher leaves nothing behind."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import httpx

from loadtests.live import Live, is_alive
from tests.e2e.asking import ALPHA, ask
from tests.e2e.conftest import SERVER_OPTIONS
from tests.e2e.test_recovery import Stream


def gone(pids: list[int], seconds: float) -> list[int]:
    """Return the processes that are still there after at most `seconds`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and any(is_alive(pid) for pid in pids):
        time.sleep(0.1)
    return [pid for pid in pids if is_alive(pid)]


def test_sigterm_lets_a_stream_finish_and_refuses_new_work(live: Live) -> None:
    stream = Stream(live, tokens=250)  # less than `drain_seconds` of a busy machine
    stream.start()
    assert stream.begun.wait(30)
    processes = live.children()
    live.process.send_signal(signal.SIGTERM)
    time.sleep(1)
    assert live.process.poll() is None, "the server left before its stream had ended"
    refused = httpx.get(f"{live.url}/readyz", timeout=10)
    assert refused.status_code == 503
    stream.join(60)
    assert stream.ended_properly
    assert live.process.wait(60) == 0
    assert gone(processes, 10) == []


def test_kill_9_of_the_launcher_leaves_no_process_and_the_next_start_serves(
    live: Live, tmp_path: Path
) -> None:
    server = Live.start(live.root, tmp_path / "serve.log", *SERVER_OPTIONS)
    server.wait_ready()
    assert ask(server.client(), "support").marker == ALPHA
    server.close_clients()
    processes = server.children()
    server.process.kill()
    server.process.wait(10)
    assert gone(processes, 20) == []
