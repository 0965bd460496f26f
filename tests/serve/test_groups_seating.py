"""The seats of the engine, on a real server: who waits, who is sent away, and that every seat comes back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from registry.entries.groups import GroupStore
from registry.entries.keys import KeyStore
from registry.entries.rights import Group, Scope
from registry.store import Registry
from serve.engine.interface import Abilities
from serve.engine.steps.tags import PRIORITY, TAGGED
from serve.settings import RequestLimits
from tests.fakes.engine import FakeEngine
from tests.fakes.raw import RawClient, request
from tests.fakes.served import BASE, Served, publish, serve, wait_until

CHAT = "/v1/chat/completions"
JSON = "content-type: application/json"
HEALTH = ("/livez", "/readyz", "/metrics", "/admin/v1/adapters")


def body(**fields: Any) -> dict[str, Any]:
    return {"model": "support", "messages": [{"role": "user", "content": "hi"}], **fields}


def small_engine(seats: int = 2) -> FakeEngine:
    engine = FakeEngine(base_name=BASE, abilities=Abilities(max_model_len=2048, prioritises=True))
    engine.seats = seats
    return engine


@contextmanager
def drowning(registry: Registry, folder: Path, seats: int = 2, **limits: Any) -> Iterator[Served]:
    """Run a server whose engine has two seats; nothing may be left in flight at its end."""
    publish(registry, folder, "support", 1)
    with serve(registry, folder, engine=small_engine(seats), limits=RequestLimits(**limits)) as served:
        yield served
        served.inner.open = True
        served.settled()
        assert served.seats.free == seats


class Crowd:
    """Clients on threads of their own."""

    def __init__(self, served: Served, workers: int = 24) -> None:
        self.served = served
        self.threads = ThreadPoolExecutor(workers)

    def ask(self, token: str = "", path: str = CHAT, **fields: Any) -> Future[httpx.Response]:
        headers = {"authorization": f"Bearer {token}"} if token else {}
        url = f"{self.served.client.base_url}".rstrip("/") + path
        return self.threads.submit(httpx.post, url, json=body(**fields), headers=headers, timeout=30)

    def sits(self, count: int, **asked: Any) -> list[Future[httpx.Response]]:
        """Ask, and wait until all have a seat."""
        found = [self.ask(play="slow", stream=True, **asked) for _ in range(count)]
        wait_until(lambda: self.served.inner.running == count, "all have a seat")
        return found


def test_beyond_the_line_clients_are_sent_away_at_once_and_health_is_answered(
    registry: Registry, tmp_path: Path
) -> None:
    with drowning(registry, tmp_path, max_waiting=3) as served:
        crowd = Crowd(served)
        seated = crowd.sits(2)
        waiting = [crowd.ask() for _ in range(3)]
        wait_until(lambda: served.seats.waiting == 3, "the line is full")
        refused = crowd.ask().result(5)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "server_is_overloaded")
        assert int(refused.headers["retry-after"]) >= 1
        assert served.metric("wardrobe_rejections_total", reason="queue_full") == 1
        assert served.metric("wardrobe_engine_seats", kind="waiting") == 3
        assert [served.client.get(path).status_code for path in HEALTH] == [200] * 4
        assert (
            served.client.post("/v1/tokenize", json={"model": "support", "prompt": "hi"}).status_code == 200
        )
        served.inner.open = True
        assert {one.result(10).status_code for one in [*seated, *waiting]} == {200}


def test_who_waits_too_long_is_told_when_to_come_again(registry: Registry, tmp_path: Path) -> None:
    with drowning(registry, tmp_path, wait_seconds=0.1) as served:
        crowd = Crowd(served)
        crowd.sits(2)
        for path, kind in ((CHAT, "server_error"), ("/v1/messages", "overloaded_error")):
            late = crowd.ask(path=path, max_tokens=5).result(5)
            assert (late.status_code, late.json()["error"]["type"]) == (503, kind)
            assert late.headers["retry-after"]
        assert served.metric("wardrobe_rejections_total", reason="queue_timeout") == 2
        assert served.seats.waiting == 0


def test_waiting_counts_in_the_time_that_a_request_may_take(registry: Registry, tmp_path: Path) -> None:
    with drowning(registry, tmp_path, wait_seconds=60, total_seconds=0.3) as served:
        queue = served.seats
        others = [queue.enter("other", 1.0, 1.0) for _ in range(2)]
        assert Crowd(served).ask().result(5).status_code == 503
        for one in others:
            queue.leave(one)


def test_who_leaves_the_line_is_never_asked_of_the_engine(registry: Registry, tmp_path: Path) -> None:
    with drowning(registry, tmp_path) as served:
        crowd = Crowd(served)
        seated = crowd.sits(2)
        with RawClient(served.client.base_url.port or 0) as client:
            text = json.dumps(body(user="gone")).encode()
            client.send(request("POST", CHAT, [JSON, f"content-length: {len(text)}"]) + text)
            wait_until(lambda: served.seats.waiting == 1, "it waits")
        wait_until(lambda: served.seats.waiting == 0, "its place is free")
        served.inner.open = True
        assert {one.result(10).status_code for one in seated} == {200}
        assert all(one.body.get("user") != "gone" for one in served.inner.seen)


@pytest.mark.parametrize("play", ["answer", "stream", "500", "400", "raise", "raise_late", "cut", "error"])
def test_a_seat_comes_back_however_a_request_ends(registry: Registry, tmp_path: Path, play: str) -> None:
    with drowning(registry, tmp_path) as served:
        for _ in range(5):
            try:
                served.chat(play=play, stream=play in {"stream", "raise_late", "cut", "error"})
            except (httpx.RemoteProtocolError, httpx.ReadError):
                assert play in {"raise_late", "cut"}
        served.settled()
        assert served.seats.free == 2


def test_a_slow_body_has_no_seat(registry: Registry, tmp_path: Path) -> None:
    with drowning(registry, tmp_path) as served, ExitStack() as stack:
        for _ in range(4):
            slow = stack.enter_context(RawClient(served.client.base_url.port or 0))
            slow.send(request("POST", CHAT, [JSON, "content-length: 100"]) + b'{"model":')
        assert [served.chat().status_code for _ in range(3)] == [200] * 3
        assert served.seats.idle


def test_an_unknown_model_is_told_without_a_wait(registry: Registry, tmp_path: Path) -> None:
    with drowning(registry, tmp_path) as served:
        crowd = Crowd(served)
        crowd.sits(2)
        assert crowd.ask(model="nobody").result(5).status_code == 404


def test_several_answers_take_several_seats(registry: Registry, tmp_path: Path) -> None:
    with drowning(registry, tmp_path, seats=4) as served:
        crowd = Crowd(served)
        crowd.sits(1, n=3)
        assert served.seats.free == 1
        waiting = crowd.ask(n=2)
        wait_until(lambda: served.seats.waiting == 1, "it waits for two seats")
        served.inner.open = True
        assert waiting.result(10).status_code == 200


def test_a_version_that_loads_keeps_no_seat_from_others(registry: Registry, tmp_path: Path) -> None:
    with drowning(registry, tmp_path) as served:
        served.engine.load_seconds = 0.5
        served.publish("late", 2, no_stable=True)
        crowd = Crowd(served)
        late = [crowd.ask(model="late@1") for _ in range(3)]
        wait_until(lambda: ("load", "late@1") in served.engine.calls, "it is being loaded")
        served.engine.load_seconds = 0.0
        assert served.chat().status_code == 200
        assert not late[0].done()
        assert [one.result(10).status_code for one in late] == [200] * 3


def test_who_waited_is_answered_by_what_is_stable_then(registry: Registry, tmp_path: Path) -> None:
    with drowning(registry, tmp_path) as served:
        crowd = Crowd(served)
        crowd.sits(2)
        late = crowd.ask()
        wait_until(lambda: served.seats.waiting == 1, "it waits")
        served.publish("support", 2, no_stable=True)
        served.registry.promote("support", 2, who="tester")
        served.runtime.watcher.refresh()
        wait_until(lambda: "support@2" in served.runtime.resident(), "the new one is loaded")
        served.inner.open = True
        assert late.result(10).headers["x-wardrobe-adapter"] == "support@2"


def keyed(registry: Registry, *groups: Group) -> list[str]:
    """Make groups with a key each, and return the keys' tokens."""
    for group in groups:
        GroupStore(registry.root).create(group, who="tester")
    return [KeyStore(registry.root).create([Scope.INFER], who="tester", group=one.name)[1] for one in groups]


def test_the_group_that_was_given_least_is_next_and_the_engine_is_told_so(
    registry: Registry, tmp_path: Path
) -> None:
    flood, light = keyed(registry, Group("flood"), Group("light"))
    with drowning(registry, tmp_path) as served:
        crowd = Crowd(served)
        crowd.sits(2, token=flood)
        for number in range(6):
            crowd.ask(flood, user=f"flood {number}")
            wait_until(lambda count=number: served.seats.waiting == count + 1, "it waits")  # type: ignore[misc]
        answer = crowd.ask(light, user="light")
        wait_until(lambda: served.seats.waiting == 7, "all wait")
        served.inner.open = True
        assert answer.result(10).status_code == 200
        served.settled()
        order = [one.body["user"] for one in served.inner.seen if "user" in one.body]
        assert "light" in order[:2], order
        told = {one.body.get("user"): int(one.headers.get(PRIORITY.decode(), 0)) for one in served.inner.seen}
        assert TAGGED <= told["light"] < told["flood 5"]


def test_a_client_cannot_name_its_place(registry: Registry, tmp_path: Path) -> None:
    with drowning(registry, tmp_path) as served:
        own = served.client.post(CHAT, json=body(), headers={"x-vllm-priority": "-1000"})
        assert (own.status_code, own.json()["error"]["param"]) == (400, "priority")
        assert served.client.post(CHAT, json=body(priority=-1)).status_code == 400
        assert served.client.post(CHAT, json=body(priority=0)).status_code == 200
        assert served.client.post(CHAT, json=body(), headers={"x-data-parallel-rank": "0"}).status_code == 200
        assert "x-data-parallel-rank" not in served.inner.seen[-1].headers


def test_a_flood_of_one_group_gives_its_place_up_and_is_told_so(registry: Registry, tmp_path: Path) -> None:
    flood, light = keyed(registry, Group("flood"), Group("light"))
    with drowning(registry, tmp_path, max_waiting=3) as served:
        crowd = Crowd(served)
        crowd.sits(2, token=flood)
        waiting = [crowd.ask(flood) for _ in range(3)]
        wait_until(lambda: served.seats.waiting == 3, "the line is full")
        answer = crowd.ask(light)
        wait_until(lambda: any(one.done() for one in waiting), "one was sent away")
        served.inner.open = True
        assert answer.result(10).status_code == 200
        assert sorted(one.result(10).status_code for one in waiting) == [200, 200, 503]
