"""Copies for the canary: made after the answer, few at a time, and compared."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from serve.rollout.assignment import Arm, is_mirrored
from serve.rollout.policy import Shadow
from serve.rollout.recording.evidence import ShadowPairs
from serve.rollout.recording.recorder import Recorder
from tests.fakes.rollouts import ROLLOUT
from tests.fakes.served import QUIET, Served, make_root, publish, serve, wait_until

SHADOWED = QUIET.model_copy(update={"shadow": Shadow(concurrency=2)})


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """Serve `support` with stable 1 and a version 2; the controller looks once, at the start."""
    monkeypatch.setattr("serve.rollout.decision.controller.TICK_SECONDS", 3600.0)
    registry = make_root(tmp_path)
    for seed in (1, 2):
        publish(registry, tmp_path, "support", seed)
    with serve(registry, tmp_path) as server:
        yield server


def mirror(served: Served, share: int = 10_000, **changes: Any) -> Recorder:
    return served.open_rollout(SHADOWED, state="shadow", weight=0, shadow=share, **changes)


def ask(served: Served, session: str = "s", **fields: object) -> httpx.Response:
    body = {"model": "support", "messages": [], **fields}
    return served.client.post("/v1/chat/completions", json=body, headers={"x-session-id": session})


def expect(served: Served, recorder: Recorder, **pairs: int) -> None:
    """Wait for these pairs, and see that no more of them come."""
    wait_until(lambda: recorder.segment.pairs == ShadowPairs(**pairs), f"{pairs} are booked")
    served.settled()
    time.sleep(0.05)
    served.settled()
    assert recorder.segment.pairs == ShadowPairs(**pairs)


@pytest.mark.parametrize(
    ("stable", "canary", "expected"),
    [
        ("answer", "answer", {"both_ok": 1}),
        ("answer", "500", {"canary_failed": 1}),
        ("answer", "raise", {"canary_failed": 1}),
        ("500", "answer", {"stable_failed": 1}),
        ("500", "500", {"both_failed": 1}),
        ("answer", "503", {"dropped": 1}),
        ("answer", "400", {"dropped": 1}),
        ("400", "answer", {}),
        ("503", "answer", {}),
    ],
)
def test_a_pair_is_who_managed_it(served: Served, stable: str, canary: str, expected: dict[str, int]) -> None:
    recorder = mirror(served)
    served.inner.plays.update({"support@1": stable, "support@2": canary})
    answer = ask(served)
    assert answer.headers.get("x-wardrobe-adapter") == ("support@1" if stable == "answer" else None)
    expect(served, recorder, **expected)
    booked = {"answer": "ok", "400": "client_error", "503": "rejected"}.get(stable, "engine_error")
    assert recorder.segment.arm(Arm.STABLE).outcomes == {booked: 1}
    assert Arm.CANARY not in recorder.segment.arms


def test_a_copy_is_the_same_request_in_one_piece_and_booked_as_shadow(served: Served) -> None:
    recorder = mirror(served)
    fields: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}, "seed": 7}
    assert "data: [DONE]" in ask(served, **fields).text
    expect(served, recorder, both_ok=1)
    original, copy = served.inner.seen
    assert (original.body["model"], copy.body["model"]) == ("support@1", "support@2")
    assert copy.body == {"model": "support@2", "messages": [], "seed": 7}
    assert original.body["stream"] is True
    answered = served.runtime.ids.verify(copy.headers["x-request-id"])
    assert answered is not None
    assert (answered.version, answered.arm) == ("support@2", "h")
    assert served.outcomes(version="2", arm="shadow") == {"ok": 1}
    shadowed = {"adapter": "support", "arm": "shadow", "reason": "shadow"}
    assert served.metric("wardrobe_route_decisions_total", **shadowed) == 1


def test_a_response_that_is_copied_is_not_stored(served: Served) -> None:
    recorder = mirror(served)
    served.client.post("/v1/responses", json={"model": "support", "input": "Hi", "store": True})
    expect(served, recorder, both_ok=1)
    original, copy = served.inner.seen
    assert (original.body["store"], copy.body["store"]) == (False, False)
    assert served.router._inference is not None
    assert served.router._inference.stored.count == 1
    assert original.body["request_id"] != copy.body["request_id"]


def test_only_the_share_is_copied_and_by_a_hash_of_its_own(served: Served) -> None:
    recorder = mirror(served, share=3_000)
    chosen = 0
    for n in range(60):
        ask(served, f"s{n}")
        chosen += is_mirrored(ROLLOUT, "support", f"s{n}", 3_000)
        wait_until(lambda: recorder.segment.pairs.both_ok == chosen, "the pair is booked")  # noqa: B023
    expect(served, recorder, both_ok=chosen)
    assert 5 < chosen < 35


def test_what_answers_no_text_is_not_copied(served: Served) -> None:
    recorder = mirror(served)
    served.client.post("/v1/embeddings", json={"model": "support", "input": "x"})
    ask(served, model="support@1")
    ask(served, model="tiny")
    expect(served, recorder)


def test_a_canarys_request_is_not_copied(served: Served) -> None:
    recorder = served.open_rollout(SHADOWED, weight=10_000, shadow=10_000)
    ask(served)
    expect(served, recorder)


def test_nobody_waits_for_a_copy_and_too_many_are_dropped(served: Served) -> None:
    recorder = mirror(served)
    served.inner.plays["support@2"] = "hang"
    began = time.monotonic()
    for n in range(5):
        assert ask(served, f"s{n}").status_code == 200
    assert time.monotonic() - began < 5
    wait_until(lambda: served.inner.running == 2, "two copies hang")
    assert recorder.segment.pairs.dropped == 3
    drained = served.client.post("/admin/v1/drain", json={"draining": True})
    assert drained.status_code == 200
    expect(served, recorder, dropped=3)
    assert served.outcomes(arm="shadow") == {"cancelled": 2}


def test_copies_end_with_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("serve.rollout.decision.controller.TICK_SECONDS", 3600.0)
    registry = make_root(tmp_path)
    for seed in (1, 2):
        publish(registry, tmp_path, "support", seed)
    with serve(registry, tmp_path) as served:
        mirror(served)
        served.inner.plays["support@2"] = "hang"
        ask(served)
        wait_until(lambda: served.inner.running == 1, "a copy hangs")


def test_a_request_whose_client_left_is_not_copied(served: Served) -> None:
    recorder = mirror(served)
    served.inner.plays["support@1"] = "hang"
    body = {"model": "support", "messages": []}
    with contextlib.suppress(httpx.ReadTimeout):
        served.client.post("/v1/chat/completions", json=body, timeout=0.3)
    expect(served, recorder)
    assert len(served.inner.seen) == 1


def test_a_canary_that_cannot_be_loaded_fails_its_pairs(served: Served) -> None:
    served.engine.refusals["support@2"] = "wrong shapes"
    recorder = mirror(served)
    assert ask(served).status_code == 200
    expect(served, recorder, canary_failed=1)
