"""Feedback: what is evidence, what is only kept, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from registry.entries.keys import KeyStore
from registry.entries.rights import Scope
from registry.errors import StorageFailed
from registry.store import Registry
from serve.errors import Busy
from serve.rollout.assignment import Arm, unit_digest
from serve.rollout.recording.recorder import Recorder
from serve.router.endpoints.feedback import MAX_COMMENT, FeedbackLine, FeedbackLog
from tests.fakes.served import QUIET, Served, make_root, publish, serve, wait_until


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """Serve `support` with stable 1 and a version 2; the controller looks once, at the start."""
    monkeypatch.setattr("serve.rollout.decision.controller.TICK_SECONDS", 3600.0)
    registry = make_root(tmp_path)
    for seed in (1, 2):
        publish(registry, tmp_path, "support", seed)
    with serve(registry, tmp_path) as server:
        yield server


def answer(served: Served, model: str = "support", session: str = "s") -> str:
    """Ask, and return the id of the answer."""
    body = {"model": model, "messages": []}
    response = served.client.post("/v1/chat/completions", json=body, headers={"x-session-id": session})
    identity: str = response.json()["id"]
    return identity


def rate(served: Served, **body: object) -> dict[str, Any]:
    """Send feedback that is accepted, and return the receipt."""
    response = served.client.post("/v1/feedback", json={"score": 1.0, **body})
    assert response.status_code == 202, response.text
    receipt: dict[str, Any] = response.json()
    assert receipt["counted"] == (receipt["reason"] == "")
    return receipt


def ratings(recorder: Recorder, arm: Arm) -> list[tuple[str, float]]:
    return [(one.unit, one.score) for one in recorder.segment.arm(arm).ratings]


def lines(registry: Registry, adapter: str = "support") -> list[dict[str, Any]]:
    files = sorted((registry.root / "feedback" / adapter).rglob("*.jsonl"))
    return [json.loads(line) for path in files for line in path.read_text().splitlines()]


@pytest.mark.parametrize(("weight", "arm"), [(0, Arm.STABLE), (10_000, Arm.CANARY)])
def test_a_score_for_an_answer_counts_for_the_arm_that_was_assigned(
    served: Served, weight: int, arm: Arm
) -> None:
    recorder = served.open_rollout(weight=weight)
    assert rate(served, response_id=answer(served), score=0.25, comment="meh")["counted"]
    assert ratings(recorder, arm) == [(unit_digest("s"), 0.25)]
    wait_until(lambda: lines(served.registry), "the line is written")
    (line,) = lines(served.registry)
    assert (line["version"], line["arm"]) == (f"support@{2 if arm is Arm.CANARY else 1}", arm.letter)
    assert (line["score"], line["comment"], line["verified"], line["counted"]) == (0.25, "meh", True, True)
    assert line["who"] == "anonymous"


def test_a_rescued_answers_score_counts_for_the_canary(served: Served) -> None:
    recorder = served.open_rollout(weight=10_000)
    served.inner.plays["support@2"] = "500"
    assert rate(served, response_id=answer(served))["counted"]
    assert ratings(recorder, Arm.CANARY) == [(unit_digest("s"), 1.0)]


def test_a_score_for_the_watched_base_counts_for_the_base(served: Served) -> None:
    recorder = served.open_rollout(weight=5_000, base_weight=5_000)
    for n in range(8):
        rate(served, response_id=answer(served, session=f"s{n}"))
    assert len(ratings(recorder, Arm.BASE)) + len(ratings(recorder, Arm.CANARY)) == 8
    assert ratings(recorder, Arm.BASE)


def test_the_first_score_of_a_unit_is_the_one_that_counts(served: Served) -> None:
    recorder = served.open_rollout(weight=10_000)
    assert rate(served, response_id=answer(served), score=0)["counted"]
    assert "rated before" in rate(served, response_id=answer(served), score=1)["reason"]
    assert ratings(recorder, Arm.CANARY) == [(unit_digest("s"), 0.0)]
    wait_until(lambda: len(lines(served.registry)) == 2, "both are kept")


def test_a_forged_id_is_kept_and_is_no_evidence(served: Served) -> None:
    recorder = served.open_rollout(weight=0)
    identity = answer(served)
    forged = identity.replace(".s.", ".c.")
    assert "valid id" in rate(served, response_id=forged)["reason"]
    assert (
        "valid id"
        in rate(served, response_id=identity[:-1] + ("0" if identity[-1] != "0" else "1"))["reason"]
    )
    assert recorder.segment.arm(Arm.CANARY).ratings == []
    wait_until(lambda: len(lines(served.registry)) == 2, "both are kept")
    assert {line["verified"] for line in lines(served.registry)} == {False}


@pytest.mark.parametrize("model", ["support@2", "support@canary", "support@stable"])
def test_an_explicit_references_score_is_kept_and_is_no_evidence(served: Served, model: str) -> None:
    recorder = served.open_rollout(weight=5_000)
    assert "by name" in rate(served, response_id=answer(served, model))["reason"]
    assert recorder.segment.arms == {}


def test_a_listed_units_score_is_no_evidence(served: Served) -> None:
    served.open_rollout(QUIET.model_copy(update={"allow": ("friend",)}), weight=1)
    assert "list" in rate(served, response_id=answer(served, session="friend"))["reason"]


def test_an_answer_from_before_the_rollout_or_of_an_earlier_one_is_no_evidence(served: Served) -> None:
    before = answer(served)
    assert "no rollout" in rate(served, response_id=before)["reason"]
    served.open_rollout(weight=10_000)
    earlier = answer(served)
    served.open_rollout(weight=0, state="rolled_back")
    assert "no rollout" in rate(served, response_id=earlier)["reason"]
    recorder = served.open_rollout(weight=10_000, rollout="ffeeddccbbaa0011")
    for old in (before, earlier):
        assert "no rollout" in rate(served, response_id=old)["reason"]
    assert recorder.segment.arms == {}
    assert rate(served, response_id=answer(served))["counted"]


def test_a_score_without_an_id_is_kept_for_people(served: Served) -> None:
    served.open_rollout(weight=5_000)
    assert not rate(served, adapter="support", unit="alice", comment="nice")["counted"]
    wait_until(lambda: lines(served.registry), "the line is written")
    (line,) = lines(served.registry)
    assert (line["adapter"], line["unit"], line["comment"]) == ("support", "alice", "nice")


def test_a_score_for_the_base_itself_is_taken_and_not_kept(served: Served) -> None:
    assert "base model" in rate(served, response_id=answer(served, "tiny"))["reason"]
    assert "base model" in rate(served, adapter="tiny")["reason"]
    assert len(served.runtime.feedback.log) == 0


@pytest.mark.parametrize(
    "body",
    [
        {"score": 1.5, "adapter": "support"},
        {"score": -0.1, "adapter": "support"},
        {"score": "1", "adapter": "support"},
        {"score": True, "adapter": "support"},
        {"adapter": "support"},
        {"score": 1},
        {"score": 1, "response_id": "chatcmpl-123"},
        {"score": 1, "adapter": "support", "comment": "x" * (MAX_COMMENT + 1)},
        {"score": 1, "adapter": "support", "rating": 5},
        [1],
    ],
)
def test_what_is_no_feedback_is_a_400_in_openais_shape(served: Served, body: object) -> None:
    response = served.client.post("/v1/feedback", json=body)
    assert (response.status_code, response.json()["error"]["code"]) == (400, "invalid_body")
    assert len(served.runtime.feedback.log) == 0


def test_an_id_and_an_adapter_that_disagree_are_refused(served: Served) -> None:
    served.publish("other", 9)
    response = served.client.post(
        "/v1/feedback", json={"score": 1, "response_id": answer(served), "adapter": "other"}
    )
    assert (response.status_code, response.json()["error"]["param"]) == (400, "adapter")
    assert rate(served, response_id=answer(served), adapter="support@1")["reason"]


def test_an_adapter_that_is_not_there_gets_no_folder(served: Served) -> None:
    forged = answer(served).replace("support@", "nobody@")
    for body in ({"adapter": "nobody"}, {"response_id": forged}):
        assert served.client.post("/v1/feedback", json={"score": 1, **body}).status_code == 404
    assert not (served.registry.root / "feedback" / "nobody").exists()


def test_too_long_a_body_is_a_413_and_another_method_a_405(served: Served) -> None:
    assert served.client.post("/v1/feedback", content=b"x" * 70_000).status_code == 413
    assert served.client.get("/v1/feedback").status_code == 405


def test_feedback_asks_for_a_key_where_there_are_any(served: Served) -> None:
    _, token = KeyStore(served.registry.root).create([Scope.INFER], who="tester")
    wait_until(lambda: served.runtime.keys.enabled, "keys are in force")
    body = {"score": 1, "adapter": "support"}
    assert served.client.post("/v1/feedback", json=body).status_code == 401
    headers = {"authorization": f"Bearer {token}"}
    accepted: httpx.Response = served.client.post("/v1/feedback", json=body, headers=headers)
    assert accepted.status_code == 202


def test_what_still_waits_is_written_at_the_end(tmp_path: Path) -> None:
    registry = make_root(tmp_path)
    publish(registry, tmp_path, "support", 1)
    with serve(registry, tmp_path) as served:
        rate(served, adapter="support")
    assert len(lines(registry)) == 1


def line(adapter: str, score: float) -> FeedbackLine:
    return FeedbackLine(
        0.0, adapter, "", "", "", score, "", "", verified=False, counted=False, who="anonymous"
    )


def test_lines_that_cannot_be_written_wait_in_their_order() -> None:
    log, written = FeedbackLog(), list[tuple[str, bytes]]()
    for score in (0.0, 0.5, 1.0):
        log.add("a", line("a", score))

    def refuse(adapter: str, lines: bytes) -> None:
        raise StorageFailed(adapter, "is full")

    with pytest.raises(StorageFailed):
        log.write(refuse)
    assert len(log) == 3
    log.write(lambda adapter, lines: written.append((adapter, lines)))
    ((adapter, text),) = written
    assert adapter == "a"
    assert [json.loads(one)["score"] for one in text.splitlines()] == [0.0, 0.5, 1.0]
    assert len(log) == 0


def test_a_log_that_is_full_says_so_and_takes_no_more() -> None:
    log = FeedbackLog(limit=1)
    log.check_room()
    log.add("a", line("a", 1.0))
    with pytest.raises(Busy):
        log.check_room()
