"""Whose fault a failure was: what another version fails on the same body is nobody's evidence."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import httpx
import pytest

from registry.store import Registry
from serve.rollout.assignment import Arm
from serve.rollout.recording.counts import ArmRecord
from serve.rollout.recording.recorder import Recorder
from serve.router.doubts import MOST_AT_ONCE
from serve.settings import RequestLimits
from tests.fakes.served import Served, make_root, publish, serve, wait_until


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    registry = make_root(tmp_path)
    for seed in (1, 2):
        publish(registry, tmp_path, "support", seed)
    return registry


def record(recorder: Recorder, arm: Arm) -> ArmRecord:
    return recorder.segment.arm(arm)


def ask(served: Served, session: int, /, **fields: Any) -> httpx.Response:
    body = {"model": "support", "messages": [{"role": "user", "content": "Hello"}], **fields}
    # A connection of its own: uvicorn closes the one whose application broke, at some moment after it.
    headers = {"x-session-id": f"session {session}", "connection": "close"}
    return served.client.post("/v1/chat/completions", json=body, headers=headers)


@pytest.mark.parametrize("play", ["500", "raise", "nothing", "error_first", "error", "unclosed"])
@pytest.mark.parametrize("weight", [10_000, 0], ids=["canary", "stable"])
def test_a_body_that_fails_with_every_version_is_nobodys_evidence(
    served: Served, play: str, weight: int
) -> None:
    recorder = served.open_rollout(weight=weight)
    for session in range(3):
        with contextlib.suppress(httpx.TransportError):
            ask(served, session, play=play, stream=play not in {"500", "raise"})
        served.settled()
    arm = Arm.CANARY if weight else Arm.STABLE
    wait_until(lambda: record(recorder, arm).outcomes == {"repeated": 3}, "all three are nobody's")
    assert (record(recorder, arm).failed, record(recorder, arm).units) == ([], set())
    booked = {"adapter": "support", "arm": arm.value, "booked": "repeated"}
    assert served.metric("wardrobe_rollout_doubts_total", **booked) == 3


def test_what_only_the_canary_fails_counts_against_it(served: Served) -> None:
    recorder = served.open_rollout(weight=10_000)
    served.inner.plays["support@2"] = "500"
    for session in range(3):
        assert ask(served, session).status_code == 200
    served.settled()
    assert record(recorder, Arm.CANARY).outcomes == {"engine_error": 3}
    assert len(record(recorder, Arm.CANARY).failed) == 3


def test_what_only_stable_fails_counts_against_stable(served: Served) -> None:
    recorder = served.open_rollout(weight=0)
    served.inner.plays["support@1"] = "500"
    assert ask(served, 1).status_code == 500
    served.settled()
    assert record(recorder, Arm.STABLE).outcomes == {"engine_error": 1}
    assert [seen.body["model"] for seen in served.inner.seen] == ["support@1", "tiny"]


def test_a_base_that_is_the_control_has_no_witness(served: Served) -> None:
    served.publish("fresh", 7, no_stable=True)
    recorder = served.open_rollout(adapter="fresh", stable=0, canary=1, weight=0)
    served.inner.plays["tiny"] = "500"
    assert served.chat("fresh").status_code == 500
    served.settled()
    assert record(recorder, Arm.STABLE).outcomes == {"engine_error": 1}


def test_a_few_are_asked_again_at_a_time_and_the_rest_is_unexplained(served: Served) -> None:
    recorder = served.open_rollout(weight=0)
    served.inner.plays.update({"support@1": "500", "tiny": "hang"})
    for session in range(MOST_AT_ONCE + 3):
        assert ask(served, session).status_code == 500
    wait_until(lambda: record(recorder, Arm.STABLE).outcomes["unexplained"] == 3, "three were not asked")
    served.runtime.drain(on=True)
    served.settled()
    assert record(recorder, Arm.STABLE).outcomes == {"unexplained": MOST_AT_ONCE + 3}


@pytest.mark.parametrize("weight", [10_000, 0], ids=["canary", "stable"])
def test_what_a_client_can_have_at_will_is_in_no_count(
    registry: Registry, tmp_path: Path, weight: int
) -> None:
    with serve(registry, tmp_path, limits=RequestLimits(total_seconds=0.1)) as served:
        recorder = served.open_rollout(weight=weight)
        assert ask(served, 1, play="400").status_code == 400
        assert ask(served, 2, play="hang").status_code == 504
        served.settled()
        found = record(recorder, Arm.CANARY if weight else Arm.STABLE).document()
        assert found.outcomes == {"client_error": 1, "timeout": 1}
        assert (found.failed, found.units - found.silent) == ([], 0)


def test_errors_do_not_tell_which_arm_a_session_is_in(served: Served) -> None:
    served.open_rollout(weight=5_000)
    told = set()
    for session in range(12):
        for play in ("400", "500"):
            answer = ask(served, session, play=play)
            assert answer.status_code == int(play)
            assert {name for name in answer.headers if name.startswith("x-wardrobe")} == set()
            told.add("support" in answer.headers["x-request-id"] or "@" in answer.headers["x-request-id"])
    assert told == {False}
    assert {ask(served, session).headers["x-wardrobe-arm"] for session in range(12)} == {"stable", "canary"}
    mine = served.client.post(
        "/v1/chat/completions", json={"model": "support", "play": "400"}, headers={"x-request-id": "mine@1.2"}
    )
    assert mine.headers["x-request-id"] == "mine@1.2"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/tokenize", {"prompt": "x"}),
        ("/v1/detokenize", {"tokens": [1]}),
        ("/v1/messages/count_tokens", {"messages": [{"role": "user", "content": "x"}]}),
        ("/v1/completions", {"prompt": "x", "max_tokens": 0, "echo": True}),
        ("/v1/completions", {"prompt": "x", "max_tokens": 0.0, "echo": True}),
        ("/v1/completions", {"prompt": "x", "max_tokens": False, "echo": True}),
    ],
)
def test_what_no_version_writes_tells_no_arm_and_is_no_evidence(
    registry: Registry, tmp_path: Path, path: str, body: dict[str, Any]
) -> None:
    for named in (False, True):
        with serve(registry, tmp_path, errors_name_version=named) as served:
            recorder = served.open_rollout(weight=5_000)
            for session in range(6):
                headers = {"x-session-id": f"session {session}"}
                answer = served.client.post(path, json={"model": "support", **body}, headers=headers)
                assert answer.status_code == 200
                assert ("x-wardrobe-arm" in answer.headers) == named
                assert ("support@" in answer.headers["x-request-id"]) == named
                for identity in (answer.headers["x-request-id"], answer.json()["id"]):
                    rated = {"response_id": identity, "adapter": "support", "score": 0}
                    receipt = served.client.post("/v1/feedback", json=rated).json()
                    assert not receipt["counted"]
                    assert receipt["reason"].startswith("kept, but no evidence")
            served.settled()
            assert recorder.segment.arms == {}


def test_an_error_is_no_answer_that_could_be_rated(registry: Registry, tmp_path: Path) -> None:
    with serve(registry, tmp_path, errors_name_version=True) as served:
        recorder = served.open_rollout(weight=10_000)
        refused = ask(served, 1, play="400")
        assert refused.headers["x-request-id"].split(".")[1] == "support@2"
        rated = {"response_id": refused.headers["x-request-id"], "score": 0}
        receipt = served.client.post("/v1/feedback", json=rated)
        assert (receipt.status_code, receipt.json()["counted"]) == (202, False)
        served.settled()
        assert record(recorder, Arm.CANARY).ratings == []


def test_errors_name_the_version_outside_rollouts_and_where_the_setting_says_so(
    registry: Registry, tmp_path: Path
) -> None:
    with serve(registry, tmp_path, errors_name_version=True) as served:
        assert ask(served, 1, play="400").headers["x-wardrobe-adapter"] == "support@1"
        served.open_rollout(weight=10_000)
        assert ask(served, 1, play="400").headers["x-wardrobe-arm"] == "canary"


def test_a_transfer_inside_vllms_own_extras_is_refused_too(served: Served) -> None:
    for name in ("kv_transfer_params", "ec_transfer_params", "lora_path"):
        refused = ask(served, 1, vllm_xargs={name: "x", "other": 1})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, f"vllm_xargs.{name}")
    assert served.inner.seen == []
    assert ask(served, 1, vllm_xargs={"other": 1}).status_code == 200
