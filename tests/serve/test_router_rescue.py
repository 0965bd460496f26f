"""No request is lost to a bad canary: who answers, what the client sees, and what is booked."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import threading
from pathlib import Path

import httpx
import pytest

from registry.store import Registry
from serve.rollout.assignment import Arm
from serve.rollout.recording.counts import ArmRecord
from serve.rollout.recording.recorder import Recorder
from serve.settings import RequestLimits, ResidencySettings
from tests.fakes.engine import FakeEngine
from tests.fakes.rollouts import ROLLOUT
from tests.fakes.served import BASE, QUIET, Served, make_root, publish, serve


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    """Make a root with `support` 1 (stable) and 2; no controller looks while a test lasts."""
    monkeypatch.setattr("serve.rollout.decision.controller.TICK_SECONDS", 3600.0)
    registry = make_root(tmp_path)
    for seed in (1, 2):
        publish(registry, tmp_path, "support", seed)
    return registry


def canary(recorder: Recorder) -> ArmRecord:
    """Return what was booked for the canary; nothing may have been booked for stable."""
    assert Arm.STABLE not in recorder.segment.arms
    return recorder.segment.arm(Arm.CANARY)


def retries(served: Served, reason: str, outcome: str = "ok") -> float:
    labels = {"adapter": "support", "reason": reason, "outcome": outcome}
    return served.metric("wardrobe_upstream_retries_total", **labels)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("play", "reason"),
    [
        ("500", "status"),
        ("502", "status"),
        ("raise", "broken"),
        ("error_first", "event"),
        ("nothing", "broken"),
    ],
)
def test_a_canary_that_fails_before_its_first_byte_is_rescued(
    served: Served, play: str, reason: str, stream: bool
) -> None:
    recorder = served.open_rollout(weight=10_000)
    served.inner.plays["support@2"] = play
    response = served.chat("support", stream=stream)
    assert response.status_code == 200
    assert "support@1" in response.text
    assert "no" not in response.text.split('"')
    assert response.headers["x-wardrobe-adapter"] == "support@1"
    assert response.headers["x-wardrobe-arm"] == "stable"
    assert response.headers["x-wardrobe-digest"] == served.registry.version("support", 1).digest
    served.settled()
    found = canary(recorder)
    assert (found.requests, found.rescued, found.outcomes) == (1, 1, {"engine_error": 1})
    assert len(found.failed) == 1
    assert retries(served, reason) == 1
    fallback = {"adapter": "support", "arm": "stable", "reason": "fallback"}
    assert served.metric("wardrobe_route_decisions_total", **fallback) == 1
    assert served.outcomes(version="2", arm="canary") == {"engine_error": 1}
    assert served.outcomes(version="1", arm="stable") == {"ok": 1}


def test_the_control_gets_the_same_body_with_an_id_and_a_scope_of_its_own(served: Served) -> None:
    served.open_rollout(weight=10_000)
    served.inner.plays["support@2"] = "500"
    response = served.client.post(
        "/v1/chat/completions",
        json={"model": "support", "messages": [{"role": "user", "content": "Hello"}], "seed": 1},
        headers={"x-request-id": "mine"},
    )
    first, second = served.inner.seen
    assert {**first.body, "model": ""} == {**second.body, "model": ""}
    ids = [served.runtime.ids.verify(seen.headers["x-request-id"]) for seen in (first, second)]
    assert [(one.version, one.arm, one.tag) for one in ids if one is not None] == [
        ("support@2", "c", ROLLOUT[:8]),
        ("support@1", "c", ROLLOUT[:8]),
    ]
    assert first.headers["x-request-id"] != second.headers["x-request-id"]
    assert second.headers["x-request-id"] in response.json()["id"]
    assert response.headers["x-request-id"] == "mine"


def test_a_canary_that_cannot_be_loaded_is_rescued_every_time(registry: Registry, tmp_path: Path) -> None:
    engine = FakeEngine(base_name=BASE)
    engine.refusals["support@2"] = "wrong shapes"
    with serve(registry, tmp_path, engine=engine) as served:
        recorder = served.open_rollout(weight=10_000)
        for _ in range(3):
            assert served.chat("support").headers["x-wardrobe-adapter"] == "support@1"
        assert served.chat("support@canary").status_code == 503
        served.settled()
        assert canary(recorder).outcomes == {"engine_error": 3}
        assert canary(recorder).rescued == 3
        assert retries(served, "load") == 3


def test_a_canary_without_room_is_answered_by_stable_and_is_no_failure(
    registry: Registry, tmp_path: Path
) -> None:
    fast = ResidencySettings(load_timeout_seconds=1.0)
    with serve(registry, tmp_path, engine=FakeEngine(base_name=BASE, capacity=1), residency=fast) as served:
        recorder = served.open_rollout(weight=10_000)
        with served.client.stream(
            "POST", "/v1/chat/completions", json={"model": "support@1", "play": "slow"}
        ) as stream:
            lines = stream.iter_lines()
            next(lines)
            assert served.chat("support").headers["x-wardrobe-adapter"] == "support@1"
            served.inner.open = True
            assert "data: [DONE]" in list(lines)
        served.settled()
        found = canary(recorder)
        assert (found.outcomes, found.rescued, found.failed) == ({"rejected": 1}, 1, [])
        assert retries(served, "busy") == 1


def test_a_busy_server_is_asked_once_more_for_stable(served: Served) -> None:
    recorder = served.open_rollout(weight=10_000)
    served.inner.plays["support@2"] = "503"
    assert served.chat("support").status_code == 200
    served.settled()
    assert (canary(recorder).outcomes, canary(recorder).failed) == ({"rejected": 1}, [])
    assert retries(served, "busy") == 1


@pytest.mark.parametrize("status", [400, 404, 422, 429])
def test_an_error_of_the_client_is_not_asked_twice(served: Served, status: int) -> None:
    recorder = served.open_rollout(weight=10_000)
    served.inner.plays["support@2"] = str(status)
    response = served.chat("support")
    assert response.status_code == status
    served.settled()
    assert served.inner.seen[0].body["model"] == "support@2"
    assert canary(recorder).outcomes == {"rejected" if status == 429 else "client_error": 1}
    assert canary(recorder).rescued == 0
    assert len(served.inner.seen) == 1


def test_a_client_that_left_is_not_answered_by_anybody(served: Served) -> None:
    recorder = served.open_rollout(weight=10_000)
    served.inner.plays["support@2"] = "leave_500"
    body = {"model": "support", "messages": []}
    with contextlib.suppress(httpx.ReadTimeout):
        served.client.post("/v1/chat/completions", json=body, timeout=0.3)
    served.settled()
    assert canary(recorder).outcomes == {"cancelled": 1}
    assert [seen.body["model"] for seen in served.inner.seen] == ["support@2"]


@pytest.mark.parametrize("play", ["die_500", "die_raise"])
def test_nothing_is_rescued_while_the_engine_is_dead(served: Served, play: str) -> None:
    recorder = served.open_rollout(weight=10_000)
    served.inner.plays["support@2"] = play.removeprefix("die_")
    served.inner.before = served.engine.die
    response = served.chat("support")
    assert response.status_code == 500
    assert len(served.inner.seen) == 1
    served.settled()
    assert canary(recorder).outcomes == {"unexplained": 1}  # the death itself speaks
    assert not served.runtime.ready()


@pytest.mark.parametrize("play", ["raise_late", "error", "cut", "unclosed"])
def test_a_stream_that_dies_later_is_the_canarys_and_ends_with_an_error(served: Served, play: str) -> None:
    recorder = served.open_rollout(weight=10_000)
    served.inner.plays["support@2"] = play
    with contextlib.suppress(httpx.RemoteProtocolError):
        response = served.chat("support", stream=True)
        assert response.headers["x-wardrobe-adapter"] == "support@2"
        if play == "raise_late":
            events = [line for line in response.text.splitlines() if line]
            assert json.loads(events[-1].removeprefix("data: "))["error"]["code"] == "engine_error"
    served.settled()
    assert (canary(recorder).outcomes, canary(recorder).rescued) == ({"engine_error": 1}, 0)
    # Stable was asked the same, to see whose fault it was; nobody got that answer.
    assert [seen.body["model"] for seen in served.inner.seen] == ["support@2", "support@1"]


def test_a_control_that_fails_too_is_told_to_the_client(served: Served) -> None:
    recorder = served.open_rollout(weight=10_000)
    served.inner.plays.update({"support@1": "500", "support@2": "500"})
    response = served.chat("support")
    assert response.status_code == 500
    assert [seen.body["model"] for seen in served.inner.seen] == ["support@2", "support@1"]
    served.settled()
    assert canary(recorder).outcomes == {"repeated": 1}
    assert retries(served, "status", "engine_error") == 1


def test_an_explicit_reference_to_a_failing_canary_is_not_rescued(served: Served) -> None:
    served.open_rollout(weight=5_000)
    served.inner.plays["support@2"] = "500"
    assert served.chat("support@canary").status_code == 500


def test_a_listed_unit_is_rescued_too_and_booked_nowhere(served: Served) -> None:
    recorder = served.open_rollout(QUIET.model_copy(update={"allow": ("friend",)}), weight=1)
    served.inner.plays["support@2"] = "500"
    response = served.client.post(
        "/v1/chat/completions",
        json={"model": "support", "messages": []},
        headers={"x-session-id": "friend"},
    )
    assert (response.status_code, response.headers["x-wardrobe-adapter"]) == (200, "support@1")
    served.settled()
    assert recorder.segment.arms == {}


def test_a_canary_that_is_quarantined_is_rescued_and_never_loaded(served: Served) -> None:
    recorder = served.open_rollout(weight=10_000)
    assert served.chat("support").headers["x-wardrobe-adapter"] == "support@2"
    served.registry.quarantine("support", 2, "a test says so", who="tester")
    served.runtime.watcher.refresh()
    assert served.chat("support").headers["x-wardrobe-adapter"] == "support@1"
    served.settled()
    assert canary(recorder).outcomes == {"ok": 1, "engine_error": 1}


def test_the_base_rescues_where_it_is_the_control(served: Served) -> None:
    served.publish("fresh", 7, no_stable=True)
    served.open_rollout(adapter="fresh", stable=0, canary=1, weight=10_000)
    served.inner.plays["fresh@1"] = "500"
    response = served.chat("fresh")
    assert (response.status_code, response.headers["x-wardrobe-adapter"]) == (200, BASE)
    answered = served.runtime.ids.verify(response.json()["id"])
    assert answered is not None
    assert (answered.version, answered.arm) == ("fresh@0", "c")


def test_after_the_promotion_the_version_before_rescues(served: Served) -> None:
    served.open_rollout(weight=5_000)
    served.open_rollout(weight=10_000, state="promoted")
    served.inner.plays["support@2"] = "500"
    assert served.chat("support").headers["x-wardrobe-adapter"] == "support@1"


def test_a_rescue_waits_for_the_real_leaving_of_the_client(served: Served) -> None:
    recorder = served.open_rollout(weight=10_000)
    served.inner.plays.update({"support@2": "500", "support@1": "hang"})
    with contextlib.suppress(httpx.ReadTimeout):
        served.client.post("/v1/chat/completions", json={"model": "support", "messages": []}, timeout=0.3)
    served.settled()
    assert served.inner.left == 1
    assert canary(recorder).outcomes == {"unexplained": 1}
    assert retries(served, "status", "cancelled") == 1
    assert served.outcomes(version="1") == {"cancelled": 1}


def test_a_canary_that_takes_all_the_time_leaves_none_for_a_rescue(
    registry: Registry, tmp_path: Path
) -> None:
    with serve(registry, tmp_path, limits=RequestLimits(total_seconds=0.2)) as served:
        recorder = served.open_rollout(weight=10_000)
        served.inner.plays["support@2"] = "hang"
        response = served.chat("support")
        assert (response.status_code, response.json()["error"]["code"]) == (504, "timeout")
        served.settled()
        assert (canary(recorder).outcomes, canary(recorder).rescued) == ({"timeout": 1}, 0)


def test_no_request_is_lost_under_load_while_the_canary_breaks_in_every_way(served: Served) -> None:
    recorder = served.open_rollout(weight=5_000)
    ways = ["500", "raise", "error_first", "nothing", "503"]
    stop, turns = threading.Event(), iter(range(10**9))

    def spoil() -> None:
        while not stop.wait(0.01):
            served.inner.plays["support@2"] = ways[next(turns) % len(ways)]

    served.inner.plays["support@2"] = "500"
    spoiler = threading.Thread(target=spoil)
    spoiler.start()
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda n: stream_once(served, n), range(400)))
    stop.set()
    spoiler.join()
    served.settled()
    assert set(answers) == {(200, "support@1", True)}
    found = recorder.segment.arm(Arm.CANARY)
    assert found.requests == found.rescued == pytest.approx(200, abs=60)
    assert found.requests + recorder.segment.arm(Arm.STABLE).requests == 400
    assert "ok" not in found.outcomes
    assert recorder.segment.arm(Arm.STABLE).outcomes == {"ok": 400 - found.requests}


def stream_once(served: Served, n: int) -> tuple[int, str, bool]:
    body = {"model": "support", "stream": True, "messages": [{"role": "user", "content": f"question {n}"}]}
    with served.client.stream("POST", "/v1/chat/completions", json=body) as response:
        lines = list(response.iter_lines())
    return response.status_code, response.headers["x-wardrobe-adapter"], "data: [DONE]" in lines
