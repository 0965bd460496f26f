"""The engine and the API server die or hang in mid-stream: the server comes back, nothing is left."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter

import httpx
import pytest

from loadtests.live import START_SECONDS, Live, is_alive
from tests.e2e.asking import ALPHA, ask

BODY = {
    "model": "support",
    "messages": [{"role": "user", "content": "Hello there!"}],
    "max_tokens": 800,
    "stream": True,
    "ignore_eos": True,
}


class Stream(threading.Thread):
    """One long stream; `ended_properly` is True only if the protocol's closing event came."""

    def __init__(self, live: Live, tokens: int = 800, key: str = "") -> None:
        super().__init__()
        self.headers = {"authorization": f"Bearer {key}"} if key else {}
        self.body = {**BODY, "max_tokens": tokens}
        self.url = f"{live.url}/v1/chat/completions"
        self.begun = threading.Event()
        self.ended_properly = False
        self.text = ""

    def run(self) -> None:
        try:
            with httpx.stream("POST", self.url, json=self.body, headers=self.headers, timeout=60) as response:
                for line in response.iter_lines():
                    self.text += line + "\n"
                    self.begun.set()
                    self.ended_properly = self.ended_properly or line == "data: [DONE]"
        except httpx.TransportError:
            pass


def probe_until_ready(live: Live, seconds: float) -> Counter[str]:
    """Open a connection every 100 ms until the server answers again; count what came back."""
    seen: Counter[str] = Counter()
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            answer = httpx.get(f"{live.url}/v1/models", timeout=10)
            seen[str(answer.status_code)] += 1
            if answer.status_code == 503:
                assert int(answer.headers["retry-after"]) >= 1
                assert answer.json()["error"]["message"]
            if answer.status_code == 200 and seen["503"]:
                return seen
        except httpx.ConnectError:
            seen["refused"] += 1
        except httpx.TransportError:
            seen["cut"] += 1
        time.sleep(0.1)
    pytest.fail(f"not back after {seconds} s: {seen}\n{live.log.read_text()[-3000:]}")


@pytest.mark.parametrize("victim", ["EngineCore", "serve.engine.child"])
def test_kill_9_in_mid_stream_is_survived(live: Live, victim: str) -> None:
    stream = Stream(live)
    stream.start()
    assert stream.begun.wait(30)
    before = live.children()
    targets = live.children(victim)
    assert len(targets) >= 1, [live.children()]
    os.kill(targets[0], signal.SIGKILL)
    seen = probe_until_ready(live, START_SECONDS)
    stream.join(60)
    assert not stream.is_alive()
    assert not stream.ended_properly or '"error"' in stream.text
    assert seen["refused"] == 0, seen
    assert_recovered(live, before)


def test_a_stopped_engine_in_mid_stream_is_a_death(live: Live) -> None:
    """SIGSTOP: it neither dies nor answers. Told by /readyz, the stream ended, all of it ended, a new one."""
    stream = Stream(live)
    stream.start()
    assert stream.begun.wait(30)
    before = live.children()
    os.kill(live.children("EngineCore")[0], signal.SIGSTOP)
    seen = probe_until_ready(live, START_SECONDS)
    stream.join(60)
    assert not stream.is_alive()
    assert '"code":"engine_dead"' in stream.text
    assert seen["refused"] == 0, seen
    assert "the engine hung: a process of it has been stopped" in live.log.read_text()
    assert_recovered(live, before)
    assert "has the name of Wardrobe's package serve" in live.log.read_text(), "where it was started is told"
    assert "wardrobe_engine_hangs_total" in httpx.get(f"{live.url}/metrics", timeout=30).text


def assert_recovered(live: Live, before: list[int]) -> None:
    """The server answers again, and nothing of the last engine is left."""
    live.wait_ready()
    assert ask(live.client(), "support").marker == ALPHA
    assert live.process.poll() is None
    left = [pid for pid in before if is_alive(pid)]
    assert left == [], "processes of the dead server are left"
