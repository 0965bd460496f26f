"""Before a canary meets users: loaded everywhere, proved, golden prompts answered; and both arms' health."""

from __future__ import annotations

import asyncio
import json
from types import MappingProxyType
from typing import Any

import pytest

from registry.records import Heartbeat
from registry.views.view import AdapterView
from serve.rollout.decision.golden import answered, ask_golden, attestation
from serve.rollout.decision.health import check_health, degradation
from serve.rollout.decision.preflight import Preflight, check_forbidden, check_preflight
from serve.rollout.policy import HealthLimits
from serve.rollout.recording.evidence import LATENCY_BOUNDS, Baseline, Recent, ReplicaEvidence
from tests.fakes.rollouts import ROLLOUT, make_entry

LIMITS = HealthLimits(min_requests=20)


def beat(name: str, *resident: str, state: str = "ready") -> Heartbeat:
    return Heartbeat(name, "http://x", "sha256:0", resident, 8, state, 0.0, 1)


def view(proved: frozenset[int] = frozenset({1, 2}), **changes: Any) -> AdapterView:
    versions: Any = {1: object(), 2: object()}
    return AdapterView(
        "support",
        MappingProxyType(changes.get("versions", versions)),
        MappingProxyType({"stable": 1}),
        MappingProxyType(changes.get("quarantined", {})),
        proved,
    )


def preflight(*beats: Heartbeat, adapter: AdapterView | None = None, **more: Any) -> Preflight:
    more = {"require_proof": True, "golden": None, "failure": "", **more}
    return check_preflight(make_entry(), adapter or view(), beats, **more)


BOTH = ("support@1", "support@2")


def test_the_preflight_passes_when_every_live_replica_holds_both_versions_proved() -> None:
    assert preflight(beat("r1", *BOTH), beat("r2", *BOTH)).ready


@pytest.mark.parametrize(
    ("found", "missing"),
    [
        (preflight(), "no replica is live"),
        (preflight(beat("r1", *BOTH), beat("r2", "support@1")), "r2 has not loaded support@2"),
        (preflight(beat("r1", "support@2")), "r1 has not loaded support@1"),
        (preflight(beat("r1", *BOTH), adapter=view(frozenset({1}))), "support@2 is not proved yet"),
        (preflight(beat("r1", *BOTH), golden={}), "golden prompts have not been answered"),
    ],
)
def test_a_preflight_that_does_not_pass_says_what_is_missing(found: Preflight, missing: str) -> None:
    assert not found.ready
    assert missing in found.missing
    assert not found.failed


def test_what_waiting_does_not_mend_is_a_failure() -> None:
    assert preflight(beat("r1", *BOTH), failure="refused by the engine").failed == "refused by the engine"
    assert "greeting" in preflight(beat("r1", *BOTH), golden={"greeting": False, "x": True}).failed


def test_a_draining_replica_and_a_missing_proof_rule_do_not_stand_in_the_way() -> None:
    assert preflight(beat("r1", *BOTH), beat("r2", state="draining")).ready
    assert preflight(beat("r1", *BOTH), adapter=view(frozenset()), require_proof=False).ready
    assert preflight(beat("r1", *BOTH), golden={"greeting": True}).ready


def test_against_the_base_only_the_canary_has_to_be_loaded() -> None:
    found = check_preflight(
        make_entry(stable=0), view(), [beat("r1", "support@2")], require_proof=True, golden=None, failure=""
    )
    assert found.ready


def test_a_version_in_quarantine_or_deleted_may_not_be_served() -> None:
    assert check_forbidden(make_entry(), view()) == ""
    assert "bit rot" in check_forbidden(make_entry(), view(quarantined={2: "bit rot"}))
    assert "does not exist" in check_forbidden(make_entry(), view(versions={1: object()}))


def sparse(seconds: float, count: int) -> dict[int, int]:
    return {sum(bound < seconds for bound in LATENCY_BOUNDS): count}


def test_an_arm_is_degraded_by_its_failures_or_its_median_and_only_on_enough_requests() -> None:
    baseline = Baseline(first_token=[0.1, 0.2, 0.3], per_token=[0.02, 0.03, 0.04], error_rate=0.01)
    assert degradation(Recent(requests=19, failures=19), baseline, LIMITS) == ""
    assert degradation(Recent(requests=100, failures=8), baseline, LIMITS) == ""
    assert "9 of 100" in degradation(Recent(requests=100, failures=9), baseline, LIMITS)
    assert degradation(Recent(requests=30, per_token=sparse(0.05, 30)), baseline, LIMITS) == ""
    assert "token" in degradation(Recent(requests=30, per_token=sparse(0.1, 30)), baseline, LIMITS)
    assert degradation(Recent(requests=30, per_token=sparse(0.1, 30)), Baseline(), LIMITS) == ""


def test_health_is_over_all_replicas() -> None:
    half = ReplicaEvidence(rollout=ROLLOUT, adapter="support", replica="r", at=0.0)
    half.recent = {"stable": Recent(requests=10, failures=10), "canary": Recent(requests=10)}
    one, two = (check_health([half] * count, Baseline(), LIMITS) for count in (1, 2))
    assert (one.stable_degraded, one.measured) == (False, True)
    assert (two.stable_degraded, two.canary_degraded) == (True, False)
    assert "stable: 20 of 20" in two.sentence


def test_golden_prompts_are_asked_and_their_answers_kept() -> None:
    asked: list[tuple[str, dict[str, Any]]] = []

    async def ask(path: str, raw: bytes) -> tuple[int, bytes]:
        body = json.loads(raw)
        asked.append((path, body))
        if "broken" in str(body):
            return 500, b"engine fell over"
        text = "Hello Ann"
        choice = {"message": {"content": text}} if "chat" in path else {"text": text}
        return 200, json.dumps({"choices": [{**choice, "finish_reason": "stop"}]}).encode()

    lines = b"\n".join(
        json.dumps(line).encode()
        for line in (
            {"name": "greeting", "messages": [{"role": "user", "content": "hi"}], "expect": "Ann"},
            {"prompt": "hi", "expect": "Bob", "max_tokens": 5},
            {"prompt": "broken"},
            {"question": "?"},
        )
    )
    answers = asyncio.run(ask_golden(ask, "support@2", lines))
    assert [one.ok for one in answers] == [True, False, False, False]
    assert [path for path, _ in asked] == ["/v1/chat/completions", "/v1/completions", "/v1/completions"]
    assert asked[0][1]["model"] == "support@2"
    assert "expect" not in asked[0][1]
    assert (asked[0][1]["max_tokens"], asked[1][1]["max_tokens"]) == (64, 5)
    body = attestation(answers)
    assert body["ok"] is False
    assert answered(body) == {"greeting": True, "line 2": False, "line 3": False, "line 4": False}
