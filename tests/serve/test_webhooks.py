"""Webhooks of jobs: what OpenAI's client accepts, once, by one server of the root, until it is taken."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from pydantic import ValidationError

from registry.entries.openai.deliveries import Deliveries, DeliveryState
from registry.store import Registry
from registry.tuning.jobs import TuningJobs
from registry.tuning.machine import JobEvent
from serve.settings import ServeSettings
from serve.tuning_settings import TuningSettings, WebhookReceiver
from serve.webhooks.delivery import BACKOFF_SECONDS, HOLD_SECONDS, KEEP_SECONDS, WebhookSender
from serve.webhooks.events import WebhookEvent, endings_of
from serve.webhooks.signing import sign
from tests.fakes.http_server import served as listening
from tests.fakes.served import serve, wait_until
from tests.fakes.tuning import make_job
from tests.published_tuning import check_tuning

SECRET = "whsec_" + base64.b64encode(b"k" * 24).decode()
URL = "https://app.example/secret-path"


@dataclass
class Receiver:
    """What is behind the URL: it keeps what came, and answers with the next of `statuses`, then 200."""

    statuses: list[int] = field(default_factory=list)
    seen: list[httpx.Request] = field(default_factory=list)

    def answer(self, request: httpx.Request) -> httpx.Response:
        self.seen.append(request)
        status = self.statuses.pop(0) if self.statuses else 200
        if status == 0:
            raise httpx.ConnectError(f"cannot reach {URL}")
        return httpx.Response(status)


@dataclass
class Clock:
    now: float = 1_796_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def receiver() -> Receiver:
    return Receiver()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def make(registry: Registry, receiver: Receiver, clock: Clock) -> Callable[..., WebhookSender]:
    def sender(who: str = "r1", *, events: tuple[str, ...] = ()) -> WebhookSender:
        root = registry.catalogue.root
        wanted = WebhookReceiver.model_validate({"url": URL, "secret": SECRET, "events": events})
        return WebhookSender(
            Deliveries(root, clock),
            [wanted],
            [endings_of("fine_tuning.job", TuningJobs(root, clock).all)],
            who=who,
            clock=clock,
            transport=httpx.MockTransport(receiver.answer),
        )

    return sender


@pytest.fixture
def ended(registry: Registry, clock: Clock) -> str:
    """A job that was cancelled now."""
    job = make_job(TuningJobs(registry.catalogue.root, clock))
    job.append(JobEvent.CANCELLED, who="tester")
    return job.id


def test_openais_client_takes_what_is_sent(
    make: Callable[..., WebhookSender], receiver: Receiver, ended: str, clock: Clock
) -> None:
    clock.now = time.time()
    sender = make()
    event = WebhookEvent("fine_tuning.job.succeeded", ended, clock.now)
    sender._sources = (lambda _: [event],)
    assert sender.turn() == 1
    (request,) = receiver.seen
    with openai.OpenAI(api_key="none", webhook_secret=SECRET) as client:
        found = client.webhooks.unwrap(request.content, request.headers)
    check_tuning("event", json.loads(request.content))
    assert (found.type, found.id) == ("fine_tuning.job.succeeded", event.id)
    assert found.to_dict()["data"] == {"id": ended}
    other = openai.OpenAI(api_key="none", webhook_secret=SECRET[:-4] + "AAAA")
    with other, pytest.raises(openai.InvalidWebhookSignatureError):
        other.webhooks.unwrap(request.content, request.headers)


def test_an_ending_is_told_once_by_one_server_of_the_root(
    make: Callable[..., WebhookSender], receiver: Receiver, ended: str
) -> None:
    servers = [make(f"r{number}") for number in range(3)]
    for _ in range(3):
        for server in servers:
            server.turn()
    assert [json.loads(one.content)["data"]["id"] for one in receiver.seen] == [ended]
    assert make("started later").turn() == 0


def test_what_is_not_taken_is_sent_again_with_the_same_id_and_longer_pauses(
    make: Callable[..., WebhookSender], receiver: Receiver, ended: str, clock: Clock,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    receiver.statuses = [500, 0, 302, 404]
    servers = [make("r1"), make("r2")]
    for attempt, pause in enumerate((*BACKOFF_SECONDS[:4], 0), start=1):
        for server in servers:
            server.turn()
        assert len(receiver.seen) == attempt
        clock.now += pause
    assert len({one.headers["webhook-id"] for one in receiver.seen}) == 1
    assert len({one.headers["webhook-timestamp"] for one in receiver.seen}) == 5
    assert servers[0].turn() == 0
    assert "secret-path" not in caplog.text
    assert "app.example" in caplog.text


def test_a_receiver_that_is_gone_for_good_and_an_old_ending_are_given_up(
    make: Callable[..., WebhookSender], receiver: Receiver, ended: str, clock: Clock
) -> None:
    receiver.statuses = [410]
    sender = make()
    for _ in range(3):
        sender.turn()
        clock.now += 3600
    assert len(receiver.seen) == 1
    clock.now += KEEP_SECONDS
    assert make("a new server").turn() == 0


def test_who_dies_while_sending_is_followed_by_another(
    make: Callable[..., WebhookSender], registry: Registry, receiver: Receiver, ended: str, clock: Clock
) -> None:
    deliveries = Deliveries(registry.catalogue.root, clock)
    event = next(iter(endings_of("fine_tuning.job", TuningJobs(registry.catalogue.root, clock).all)(0)))
    begun = deliveries.begin(event.delivery_to(URL), "killed", HOLD_SECONDS)
    assert begun is not None
    assert make("r2").turn() == 0
    clock.now += HOLD_SECONDS + 1
    assert make("r2").turn() == 1
    # The first one lives after all: what it says of its attempt changes nothing.
    deliveries.end(event.delivery_to(URL), begun, DeliveryState.WAITING, clock.now, "late")
    last = deliveries.last(event.delivery_to(URL))
    assert last is not None
    assert last.state is DeliveryState.DELIVERED


def test_only_what_a_receiver_wants_is_sent(
    make: Callable[..., WebhookSender], receiver: Receiver, ended: str
) -> None:
    assert make(events=("batch.completed",)).turn() == 0
    assert make(events=("fine_tuning.job.cancelled",)).turn() == 1


def test_deliveries_are_forgotten_days_later(
    make: Callable[..., WebhookSender], registry: Registry, ended: str, clock: Clock
) -> None:
    sender = make()
    sender.turn()
    (folder,) = (registry.root / "deliveries").iterdir()
    os.utime(folder, (clock.now, clock.now))
    sender.tidy()
    assert folder.exists()
    clock.now += 3 * KEEP_SECONDS
    sender.tidy()
    assert not folder.exists()


@pytest.mark.parametrize(
    "secret", ["", "whsec_", "secret", "whsec_" + "A" * 31, SECRET[6:], "whsec_?" + "A" * 40]
)
def test_a_secret_that_signs_nothing_is_refused(secret: str) -> None:
    with pytest.raises(ValidationError):
        WebhookReceiver.model_validate({"url": URL, "secret": secret})
    with pytest.raises(ValueError, match="base64"):
        sign(secret, "evt_1", 0, b"")


def test_the_secret_is_handed_to_the_server_and_shown_nowhere_else() -> None:
    settings = ServeSettings(
        tuning=TuningSettings.model_validate({"webhooks": [{"url": URL, "secret": SECRET}]})
    )
    again = ServeSettings.model_validate_json(settings.model_dump_json())
    assert again.tuning.webhooks[0].secret.get_secret_value() == SECRET
    assert SECRET not in repr(settings) + str(settings.model_dump())


def test_a_running_server_tells_of_a_job_that_another_process_ended(
    registry: Registry, tmp_path: Path
) -> None:
    seen: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            message = await receive()
            seen.append(json.loads(message["body"]))
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b""})

    with listening(app) as url:
        wanted = {"webhooks": [{"url": f"{url}/hook", "secret": SECRET}]}
        with serve(registry, tmp_path, tuning=TuningSettings.model_validate(wanted)):
            job = make_job(TuningJobs(registry.catalogue.root))
            job.append(JobEvent.CANCELLED, who="tester")
            wait_until(lambda: seen, "the receiver is told")
    assert [one["data"]["id"] for one in seen] == [job.id]


def test_a_receiver_that_sends_a_byte_now_and_then_is_given_up_like_one_that_hangs(
    registry: Registry, ended: str, clock: Clock
) -> None:
    """An answer that trickles does not hold up the events of others."""
    with trickling() as url:
        root = registry.catalogue.root
        wanted = WebhookReceiver.model_validate({"url": url, "secret": SECRET})
        sources = [endings_of("fine_tuning.job", TuningJobs(root, clock).all)]
        deliveries = Deliveries(root, clock)
        sender = WebhookSender(deliveries, [wanted], sources, who="r1", clock=clock, patience=0.2)
        assert sender.turn() == 1
        (folder,) = (root.path / "deliveries").iterdir()
        last = deliveries.last(folder.name)
    assert last is not None
    assert (last.state, last.detail) == (DeliveryState.WAITING, "it took longer than 0.2 s")


@contextlib.contextmanager
def trickling() -> Iterator[str]:
    """Answer one connection with a header that has no end, until the client is gone."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def trickle() -> None:
            with listener.accept()[0] as client, contextlib.suppress(ConnectionError):
                client.sendall(b"HTTP/1.1 200 OK\r\n")
                while True:
                    client.sendall(b"x-more: 1\r\n")
                    time.sleep(0.02)

        thread = threading.Thread(target=trickle)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/"
        finally:
            thread.join()
