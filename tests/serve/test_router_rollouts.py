"""An open rollout on a real uvicorn: who is assigned what, and what the evidence says afterwards."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from registry.errors import CorruptStore
from registry.store import Registry
from serve.protocol.body import parse_fields
from serve.rollout.assignment import Arm, choose_arm, conversation_unit, unit_digest
from serve.rollout.policy import FormatMetric, Policy, PolicyMetrics
from serve.rollout.recording.counts import ArmRecord
from serve.rollout.recording.recorder import Recorder
from tests.fakes.rollouts import ROLLOUT
from tests.fakes.served import BASE, QUIET, Served, make_root, publish, serve, wait_until


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    registry = make_root(tmp_path)
    for seed in (1, 2):
        publish(registry, tmp_path, "support", seed)
    return registry


@pytest.fixture
def served(registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """Serve `support` with stable 1 and a version 2; the controller looks once, at the start."""
    monkeypatch.setattr("serve.rollout.decision.controller.TICK_SECONDS", 3600.0)
    with serve(registry, tmp_path) as server:
        yield server


def ask(served: Served, n: int, model: str = "support", **fields: object) -> httpx.Response:
    """Begin conversation number `n` under a system prompt that all share."""
    turns = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": f"question {n}"}]
    return served.client.post("/v1/chat/completions", json={"model": model, "messages": turns, **fields})


def record(recorder: Recorder, arm: Arm) -> ArmRecord:
    """Return what was booked for an arm under the present record."""
    return recorder.segment.arm(arm)


def test_a_thousand_conversations_with_one_system_prompt_are_split_by_the_hash(served: Served) -> None:
    recorder = served.open_rollout(weight=2_500)
    arms: Counter[str] = Counter()
    for n in range(1000):
        response = ask(served, n)
        arms[response.headers["x-wardrobe-arm"]] += 1
        expected = choose_arm(recorder.split, "support", conversation_of(n))
        assert response.headers["x-wardrobe-arm"] == expected.value
    assert arms["canary"] == pytest.approx(250, abs=45)  # 99.9 % of the binomial
    served.settled()
    assert record(recorder, Arm.CANARY).requests == arms["canary"]
    assert len(record(recorder, Arm.STABLE).units) == arms["stable"]
    decided = {"adapter": "support", "reason": "weight"}
    for arm in ("stable", "canary"):
        assert served.metric("wardrobe_route_decisions_total", arm=arm, **decided) == arms[arm]


def conversation_of(n: int) -> str:
    turns = f'[{{"role":"system","content":"Be kind."}},{{"role":"user","content":"question {n}"}}]'
    unit = conversation_unit(parse_fields(f'{{"messages":{turns}}}'.encode(), frozenset()))
    assert unit is not None
    return unit


@pytest.mark.parametrize(("weight", "arm"), [(0, "stable"), (10_000, "canary")])
def test_no_weight_and_full_weight_are_exact(served: Served, weight: int, arm: str) -> None:
    served.open_rollout(weight=weight)
    assert {ask(served, n).headers["x-wardrobe-arm"] for n in range(50)} == {arm}


def test_an_answer_says_who_was_assigned_and_who_answered(served: Served) -> None:
    served.open_rollout(weight=10_000)
    response = ask(served, 1)
    assert response.headers["x-wardrobe-adapter"] == response.json()["model"] == "support@2"
    assert response.headers["x-wardrobe-digest"] == served.registry.version("support", 2).digest
    answered = served.runtime.ids.verify(response.json()["id"])
    assert answered is not None
    assert (answered.version, answered.arm, answered.tag) == ("support@2", "c", ROLLOUT[:8])
    assert answered.unit == conversation_of(1)


def test_a_conversation_stays_with_its_arm_and_only_its_first_turn_is_timed(served: Served) -> None:
    recorder = served.open_rollout(weight=5_000)
    first = [{"role": "user", "content": "Hello"}]
    later = [*first, {"role": "assistant", "content": "Hi"}, {"role": "user", "content": "Bye"}]
    arms = {
        served.client.post(
            "/v1/chat/completions", json={"model": "support", "messages": turns, "stream": True}
        ).headers["x-wardrobe-arm"]
        for turns in (later, first)
    }
    served.settled()
    arm = Arm(arms.pop())
    assert not arms
    found = record(recorder, arm)
    assert (found.requests, len(found.units)) == (2, 1)
    assert sum(found.first_token.histogram) == 2
    assert found.first_token.count == 1


@pytest.mark.parametrize(
    ("unit", "fields", "session", "expected"),
    [
        ("conversation", {"user": "alice"}, "s", "s"),
        ("user", {"user": "alice"}, "s", "alice"),
        ("user", {}, "s", "s"),
        ("user", {"user": 5}, None, None),
    ],
)
def test_the_unit_is_what_the_policy_randomises(
    served: Served, unit: str, fields: dict[str, Any], session: str | None, expected: str | None
) -> None:
    recorder = served.open_rollout(QUIET.model_copy(update={"unit": unit}), weight=5_000)
    headers = {} if session is None else {"x-session-id": session}
    turns = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "question 1"}]
    body = {"model": "support", "messages": turns, **fields}
    served.client.post("/v1/chat/completions", json=body, headers=headers)
    served.settled()
    units = {*record(recorder, Arm.STABLE).units, *record(recorder, Arm.CANARY).units}
    assert units == {conversation_of(1) if expected is None else unit_digest(expected)}


def test_by_request_every_request_is_a_unit_of_its_own(served: Served) -> None:
    recorder = served.open_rollout(QUIET.model_copy(update={"unit": "request"}), weight=5_000)
    for _ in range(60):
        ask(served, 1)
    served.settled()
    shares = [len(record(recorder, arm).units) for arm in (Arm.STABLE, Arm.CANARY)]
    assert sum(shares) == 60
    assert min(shares) > 10


def test_an_explicit_reference_is_answered_and_booked_nowhere(served: Served) -> None:
    recorder = served.open_rollout(weight=5_000)
    for model, version in (("support@stable", 1), ("support@canary", 2), ("support@2", 2)):
        response = served.chat(model)
        assert response.headers["x-wardrobe-adapter"] == f"support@{version}"
        assert response.headers["x-wardrobe-arm"] == "direct"
    served.settled()
    assert recorder.segment.arms == {}
    pinned = {"adapter": "support", "arm": "direct", "reason": "pinned"}
    assert served.metric("wardrobe_route_decisions_total", **pinned) == 3


def test_there_is_no_canary_without_an_open_rollout(served: Served) -> None:
    assert served.chat("support@canary").status_code == 404
    served.open_rollout(weight=5_000)
    assert served.chat("support@canary").status_code == 200


def test_lists_decide_before_the_hash_and_are_booked_nowhere(served: Served) -> None:
    policy = QUIET.model_copy(update={"allow": ("friend",), "deny": ("foe",)})
    recorder = served.open_rollout(policy, weight=5_000)
    for session, arm in (("friend", "canary"), ("foe", "stable")):
        response = served.client.post(
            "/v1/chat/completions",
            json={"model": "support", "messages": []},
            headers={"x-session-id": session},
        )
        assert response.headers["x-wardrobe-arm"] == arm
        listed = {"adapter": "support", "arm": arm, "reason": "listed"}
        assert served.metric("wardrobe_route_decisions_total", **listed) == 1
    served.settled()
    assert recorder.segment.arms == {}


def test_the_base_is_a_third_arm_that_is_only_watched(served: Served) -> None:
    policy = QUIET.model_copy(update={"observe_base": 5_000})
    recorder = served.open_rollout(policy, weight=5_000, base_weight=5_000)
    arms = Counter(ask(served, n).headers["x-wardrobe-arm"] for n in range(40))
    assert arms["base"] > 5
    assert arms["canary"] > 5
    assert arms.total() == arms["base"] + arms["canary"]
    served.settled()
    assert record(recorder, Arm.BASE).requests == arms["base"]
    assert served.outcomes(adapter="support", version="0", arm="base") == {"ok": arms["base"]}
    response = next(
        one for one in (ask(served, n) for n in range(40)) if one.headers["x-wardrobe-arm"] == "base"
    )
    assert response.headers["x-wardrobe-adapter"] == response.json()["model"] == BASE
    answered = served.runtime.ids.verify(response.json()["id"])
    assert answered is not None
    assert (answered.version, answered.arm) == ("support@0", "b")


def test_without_a_stable_the_base_is_the_control(served: Served) -> None:
    served.publish("fresh", 7, no_stable=True)
    assert served.chat("fresh").status_code == 404
    recorder = served.open_rollout(adapter="fresh", stable=0, canary=1, weight=5_000)
    arms = Counter(ask(served, n, "fresh").headers["x-wardrobe-adapter"] for n in range(30))
    assert set(arms) == {BASE, "fresh@1"}
    served.settled()
    assert record(recorder, Arm.STABLE).requests == arms[BASE]
    assert served.outcomes(adapter="fresh", version="0", arm="stable") == {"ok": arms[BASE]}
    assert served.chat("fresh@stable").status_code == 404
    cards = {card["id"]: card for card in served.client.get("/v1/models").json()["data"]}
    assert (cards["fresh"]["root"], cards["fresh"]["rollout"]["stable"]) == (BASE, BASE)
    served.publish("other", 9)
    wait_until(lambda: "other@1" in served.engine.resident(), "the new view is followed")
    assert served.outcomes(adapter="fresh", version="0", arm="stable") == {"ok": arms[BASE]}


@pytest.mark.parametrize(
    ("play", "outcome"),
    [("stream", "ok"), ("error", "engine_error"), ("unclosed", "engine_error"), ("400", "client_error")],
)
def test_an_outcome_is_booked_at_the_end_under_the_arm(served: Served, play: str, outcome: str) -> None:
    recorder = served.open_rollout(weight=0)
    served.inner.plays["support@1"] = play
    ask(served, 1, stream=True)
    served.settled()
    found = record(recorder, Arm.STABLE)
    assert found.outcomes == {outcome: 1}
    assert found.failed == ([conversation_of(1)] if outcome == "engine_error" else [])
    assert found.finish == ({} if play in {"400", "unclosed"} else {"stop": 1})


def test_a_stream_that_ends_under_a_later_record_is_booked_where_it_began(served: Served) -> None:
    recorder = served.open_rollout(weight=0)
    before = recorder.segment
    body = {"model": "support", "messages": [], "play": "slow"}
    with served.client.stream("POST", "/v1/chat/completions", json=body) as stream:
        lines = stream.iter_lines()
        next(lines)
        served.open_rollout(weight=10_000)
        assert recorder.segment is not before
        assert ask(served, 1).headers["x-wardrobe-arm"] == "canary"
        served.inner.open = True
        assert "data: [DONE]" in list(lines)
    served.settled()
    assert before.arm(Arm.STABLE).outcomes == {"ok": 1}
    assert Arm.STABLE not in recorder.segment.arms


def test_a_client_that_leaves_is_cancelled_and_no_failure(served: Served) -> None:
    recorder = served.open_rollout(weight=10_000)
    with contextlib.suppress(httpx.ReadTimeout):
        served.client.post(
            "/v1/chat/completions", json={"model": "support", "messages": [], "play": "hang"}, timeout=0.3
        )
    served.settled()
    assert record(recorder, Arm.CANARY).outcomes == {"cancelled": 1}
    assert [seen.body["model"] for seen in served.inner.seen] == ["support@2"]


@pytest.mark.parametrize("stream", [False, True])
def test_the_text_is_there_to_be_looked_at_where_the_policy_asks(served: Served, stream: bool) -> None:
    form = FormatMetric(kind="regex", pattern="^one two")
    metrics = PolicyMetrics(errors=None, latency=None, feedback=None, format=form)
    recorder = served.open_rollout(_with(metrics), weight=0)
    ask(served, 1, stream=stream)
    served.settled()
    recorder.book_forms(recorder.judge(recorder.take_answers()))
    found = record(recorder, Arm.STABLE)
    assert found.judged == 1
    assert found.malformed == ([] if stream else [conversation_of(1)])


@pytest.mark.parametrize(
    "forced",
    [
        {"structured_outputs": {"regex": " "}},
        {"structured_outputs": {"choice": [" "]}},
        {"response_format": {"type": "json_object"}},
        {"max_tokens": 1},
        {"stop": ["o"]},
        {"logit_bias": {"2": 100}},
        {"min_p": 2.0},
        {"a_field_of_a_later_release": 1},
    ],
    ids=str,
)
def test_a_form_that_a_clients_own_fields_caused_is_nobodys_evidence(
    served: Served, forced: dict[str, Any]
) -> None:
    form = FormatMetric(kind="not_regex", pattern="one")
    recorder = served.open_rollout(
        _with(PolicyMetrics(errors=None, latency=None, feedback=None, format=form))
    )
    for stream in (False, True):
        assert ask(served, 1, stream=stream, **forced).status_code == 200
    served.settled()
    assert recorder.take_answers() == []
    assert ask(served, 1, temperature=0.7, max_tokens=200, stop=None).status_code == 200
    served.settled()
    assert [right for _, right in recorder.judge(recorder.take_answers())] == [False]


def _with(metrics: PolicyMetrics) -> Policy:
    return QUIET.model_copy(update={"metrics": metrics})


def test_stable_outside_a_rollout_feeds_the_baseline(served: Served) -> None:
    for play in ("stream", "error"):
        served.chat("support", play=play)
    served.chat("support@1")
    served.settled()
    document = served.runtime.keeper.baseline("support").document(0.0)
    assert (document.requests, document.failures) == (2, 1)
    assert sum(document.first_token) == 2
    served.open_rollout(weight=0)
    ask(served, 1)
    served.settled()
    assert served.runtime.keeper.baseline("support").document(0.0).requests == 2


def test_the_list_of_models_shows_the_rollout(served: Served) -> None:
    served.open_rollout(weight=2_500)
    _, card = served.client.get("/v1/models").json()["data"]
    assert card["root"] == "support@1"
    assert card["aliases"] == {"stable": 1, "canary": 2}
    assert card["rollout"] == {
        "state": "ramping",
        "stable": "support@1",
        "canary": "support@2",
        "weight": 2500,
    }
    assert [version["aliases"] for version in card["versions"]] == [["stable"], ["canary"]]
    assert served.client.get("/v1/models/support@canary").json()["root"] == "support@2"


def test_a_promoted_canary_is_stable_everywhere(served: Served) -> None:
    served.open_rollout(weight=5_000)
    served.open_rollout(weight=10_000, state="promoted")
    assert ask(served, 1).headers["x-wardrobe-adapter"] == "support@2"
    assert served.chat("support@stable").headers["x-wardrobe-adapter"] == "support@2"
    _, card = served.client.get("/v1/models").json()["data"]
    assert (card["root"], card["aliases"]["stable"]) == ("support@2", 2)


def test_a_record_that_a_later_release_wrote_fails_nobody(served: Served) -> None:
    with pytest.raises(CorruptStore, match="steps"):
        served.open_rollout(weight=5_000, document={"name": "of the future", "stages": []})
    for n in range(10):
        assert ask(served, n).headers["x-wardrobe-adapter"] == "support@1"
    assert served.chat("support@canary").headers["x-wardrobe-adapter"] == "support@2"


def test_what_only_the_tokenizer_answers_is_no_evidence(served: Served) -> None:
    served.client.post("/v1/tokenize", json={"model": "support", "prompt": "x"})
    recorder = served.open_rollout(weight=5_000)
    served.client.post("/v1/tokenize", json={"model": "support", "prompt": "x"})
    served.client.post("/v1/messages/count_tokens", json={"model": "support", "messages": []})
    served.settled()
    assert recorder.segment.arms == {}
    assert served.runtime.keeper.baseline("support").document(0.0).requests == 0
    assert sum(served.outcomes(adapter="support").values()) == 3
