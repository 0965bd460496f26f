"""Webhooks over a real server: what arrives, in which order, and that nothing ever waits for them."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send

from serve.rollout.webhooks import MAX_URLS, WebhookNotifier, from_environment, host_of, message
from tests.fakes.control import admin_server
from tests.fakes.driving import make_root
from tests.fakes.http_server import served
from tests.fakes.rollouts import make_entry
from tests.fakes.served import wait_until
from tests.fakes.terminal import Terminal

QUICK = (0.01, 0.02, 0.03)
RAMPING = make_entry(seq=3, weight=500, sentence="every live replica holds both")
FIRST = make_entry(seq=1, state="preloading", event="start", weight=0, step=-1)
BACK = make_entry(
    seq=4, state="rolled_back", event="guard", weight=0, reason="errors", sentence="22 of 154 failed"
)


class Chat:
    """An application that keeps what is posted, and answers with `statuses` in turn, then 200."""

    def __init__(self, *statuses: int, hold: threading.Event | None = None) -> None:
        self.bodies: list[Any] = []
        self.paths: list[str] = []
        self._statuses = list(statuses)
        self._hold = hold

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        message = await receive()
        self.bodies.append(json.loads(message["body"]))
        self.paths.append(scope["path"])
        if self._hold is not None:
            self._hold.wait(5)
        status = self._statuses.pop(0) if self._statuses else 200
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

    @property
    def states(self) -> list[str]:
        return [body["rollout"]["state"] for body in self.bodies]


class Trickling(Chat):
    """One that says 200 and then sends a byte now and again, until it is `over`."""

    def __init__(self) -> None:
        super().__init__()
        self.over = threading.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        message = await receive()
        self.bodies.append(json.loads(message["body"]))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while not self.over.is_set():
            await send({"type": "http.response.body", "body": b".", "more_body": True})
            await asyncio.sleep(0.05)
        await send({"type": "http.response.body", "body": b""})


@contextmanager
def chat(app: Chat) -> Iterator[str]:
    with served(app) as url:
        yield f"{url}/services/SECRET"


def test_a_change_of_state_arrives_as_slack_takes_it() -> None:
    app = Chat()
    with chat(app) as url:
        notifier = WebhookNotifier([url], backoff_seconds=QUICK)
        notifier.notify(FIRST, RAMPING)
        notifier.notify(RAMPING, BACK)
        notifier.close()
    assert app.states == ["ramping", "rolled_back"]
    assert app.bodies[1]["text"] == (
        "support@2 (stable support@1): ramping → rolled_back at 0%. 22 of 154 failed"
    )
    found = app.bodies[1]["rollout"]
    assert (found["reason"], found["previous"], found["canary"], found["weight"]) == (
        "errors", "ramping", "support@2", 0,
    )  # fmt: skip


def test_only_changes_of_state_are_told() -> None:
    app = Chat()
    with chat(app) as url:
        notifier = WebhookNotifier([url], backoff_seconds=QUICK)
        notifier.notify(None, FIRST)
        notifier.notify(RAMPING, make_entry(seq=5, weight=5000, step=1))
        notifier.notify(BACK, make_entry(seq=6, rollout="f" * 16, state="preloading", weight=0))
        notifier.close()
    assert app.states == ["preloading", "preloading"]
    assert [body["rollout"]["previous"] for body in app.bodies] == ["", ""]


def test_the_policys_webhooks_are_told_beside_the_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    app, other = Chat(), Chat()
    with chat(app) as url, chat(other) as second:
        monkeypatch.setenv("WARDROBE_WEBHOOKS", f" {url}, \n")
        assert from_environment() == [url]
        notifier = WebhookNotifier(backoff_seconds=QUICK)
        entry = replace(RAMPING, policy={**RAMPING.policy, "webhooks": [second, url]})
        notifier.notify(FIRST, entry)
        notifier.close()
    assert (app.states, other.states) == (["ramping"], ["ramping"])


def test_a_failure_is_tried_again_and_order_is_kept() -> None:
    app = Chat(500, 503, 429)
    with chat(app) as url:
        notifier = WebhookNotifier([url], backoff_seconds=QUICK)
        notifier.notify(FIRST, RAMPING)
        notifier.notify(RAMPING, BACK)
        notifier.close()
    assert app.states == ["ramping"] * 4 + ["rolled_back"]


def test_a_refusal_is_final_and_the_log_holds_no_secret(caplog: pytest.LogCaptureFixture) -> None:
    app = Chat(404)
    with caplog.at_level(logging.DEBUG), chat(app) as url:
        notifier = WebhookNotifier([url], backoff_seconds=QUICK)
        notifier.notify(FIRST, RAMPING)
        notifier.close()
    assert app.states == ["ramping"]
    ours = [record.getMessage() for record in caplog.records if record.name == "wardrobe.rollout"]
    assert ours == ["webhook 127.0.0.1 was not delivered: it answered 404"]
    assert "SECRET" not in caplog.text


def test_a_server_that_is_not_there_costs_nobody_anything(caplog: pytest.LogCaptureFixture) -> None:
    notifier = WebhookNotifier(
        ["http://127.0.0.1:9/SECRET", "ftp://x/SECRET", "nonsense"], backoff_seconds=QUICK
    )
    began = time.monotonic()
    notifier.notify(FIRST, RAMPING)
    assert time.monotonic() - began < 0.5
    notifier.close()
    assert "127.0.0.1 was not delivered: ConnectError" in caplog.text
    assert caplog.text.count("is not an http or https URL") == 2
    assert "SECRET" not in caplog.text


def test_a_slow_chat_drops_messages_instead_of_blocking(caplog: pytest.LogCaptureFixture) -> None:
    hold = threading.Event()
    slow, quick = Chat(hold=hold), Chat()
    with chat(slow) as url, chat(quick) as other:
        notifier = WebhookNotifier([url, other], backoff_seconds=QUICK, queue_size=2)
        began = time.monotonic()
        notifier.notify(FIRST, RAMPING)
        wait_until(lambda: slow.bodies, "the slow chat is asked")
        for _ in range(20):
            notifier.notify(FIRST, RAMPING)
            time.sleep(0.01)
        assert time.monotonic() - began < 3
        wait_until(lambda: len(quick.bodies) > 3, "the quick one is not held up")
        hold.set()
        notifier.close()
    assert "does not keep up; a message was dropped" in caplog.text
    assert 1 <= len(slow.bodies) <= 4


def test_closing_does_not_wait_for_a_chat_that_never_answers(caplog: pytest.LogCaptureFixture) -> None:
    hold = threading.Event()
    app = Chat(hold=hold)
    with chat(app) as url:
        notifier = WebhookNotifier([url], backoff_seconds=QUICK)
        notifier.notify(FIRST, RAMPING)
        wait_until(lambda: app.bodies, "it is asked")
        began = time.monotonic()
        notifier.close(0.2)
        assert time.monotonic() - began < 2
        assert "webhook 127.0.0.1 did not answer in time" in caplog.text
        hold.set()


def test_an_answer_that_never_ends_holds_up_no_other_message() -> None:
    app = Trickling()
    with chat(app) as url:
        notifier = WebhookNotifier([url], backoff_seconds=QUICK)
        notifier.notify(FIRST, RAMPING)
        notifier.notify(RAMPING, BACK)
        wait_until(lambda: app.states == ["ramping", "rolled_back"], "both have arrived")
        app.over.set()
        notifier.close()


def test_a_record_that_cannot_be_told_stops_nobody(caplog: pytest.LogCaptureFixture) -> None:
    broken: Any = make_entry(seq=9, weight="much")
    WebhookNotifier(["http://127.0.0.1:9"], backoff_seconds=QUICK).notify(FIRST, broken)
    assert "could not be prepared" in caplog.text


def test_the_number_of_urls_is_bounded(caplog: pytest.LogCaptureFixture) -> None:
    urls = [f"http://127.0.0.1:9/{n}" for n in range(MAX_URLS + 1)]
    notifier = WebhookNotifier(urls, backoff_seconds=())
    notifier.notify(FIRST, RAMPING)
    notifier.close()
    assert "others are in use" in caplog.text


def test_the_message_of_a_base_control() -> None:
    body: Any = message(None, make_entry(stable=0, seq=1, state="preloading", weight=0))
    assert body["text"].startswith("support@2 (stable base): preloading at 0%.")
    assert host_of("http://[broken") == "?"


@pytest.mark.parametrize("over_http", [False, True])
def test_a_persons_change_is_told_by_whoever_makes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, over_http: bool
) -> None:
    registry = make_root(tmp_path)
    app = Chat()
    with ExitStack() as stack:
        monkeypatch.setenv("WARDROBE_WEBHOOKS", stack.enter_context(chat(app)))
        url = stack.enter_context(admin_server(registry.root)) if over_http else ""
        wardrobe = Terminal(("--url", url) if over_http else ("--root", str(registry.root)))
        wardrobe.ok("rollout", "start", "support@2")
        wardrobe.ok("rollout", "start", "support@3")
        wardrobe.ok("rollout", "abort", "support", "--why", "the tone")
        wait_until(lambda: len(app.bodies) == 4, "all four changes are told")
    assert app.states == ["preloading", "rolled_back", "preloading", "rolled_back"]
    assert [body["rollout"]["reason"] for body in app.bodies[1::2]] == ["superseded", "abort"]
    assert app.bodies[3]["text"].endswith("aborted it: the tone")
