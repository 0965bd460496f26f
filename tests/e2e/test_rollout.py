"""Canary rollouts on the real server, under streaming load: promoted, taken back, aborted; nothing lost."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from loadtests.live import Live, wardrobe, wardrobe_json
from tests.e2e.conversations import Conversations

POLICY = """\
name: quick
steps:
  - {weight: 20%, min_units: 15, min_seconds: 2}
  - {weight: 50%, min_units: 15, min_seconds: 2}
promotion: {no_harm_units: 30, no_harm_seconds: 2}
guard: {latency_factor: 20}
cooldown_seconds: 2
metrics: {format: {kind: regex, pattern: "ALPHA"}}
"""


@contextmanager
def talking(live: Live, model: str) -> Iterator[Conversations]:
    """Clients that stream from `model` while the block runs."""
    talk = Conversations(live.url, model, clients=6)
    thread = threading.Thread(target=lambda: asyncio.run(talk.run()))
    thread.start()
    try:
        yield talk
    finally:
        talk.stop.set()
        thread.join(60)


def prepare(live: Live, name: str, *folders: Path) -> None:
    for folder in folders:
        wardrobe(live.root, "register", name, folder, "--allow-duplicate")


def status(live: Live, name: str) -> dict[str, Any]:
    return dict(httpx.get(f"{live.url}/admin/v1/rollouts/{name}", timeout=30).raise_for_status().json())


def reach(live: Live, name: str, *states: str, seconds: float = 150) -> dict[str, Any]:
    ends = time.monotonic() + seconds
    while (found := status(live, name))["state"] not in states:
        assert time.monotonic() < ends, found
        time.sleep(0.3)
    return found


def start(live: Live, tmp_path: Path, version: str) -> None:
    (tmp_path / "policy.yaml").write_text(POLICY)
    wardrobe(live.root, "rollout", "start", version, "--policy", tmp_path / "policy.yaml")


def test_a_good_version_is_promoted_under_load(live: Live, markers: dict[str, Path], tmp_path: Path) -> None:
    prepare(live, "rolling", markers["alpha"], markers["alpha"])
    with talking(live, "rolling") as talk:
        time.sleep(2)
        start(live, tmp_path, "rolling@2")
        refused = wardrobe(live.root, "promote", "rolling@2", check=False)
        assert refused.returncode == 1
        assert "rollout" in refused.stderr
        ended = reach(live, "rolling", "promoted", "closed", "rolled_back")
        assert ended["state"] in {"promoted", "closed"}, ended
        reach(live, "rolling", "closed")
    assert not talk.failures()
    assert set(talk.models()) == {"rolling@1", "rolling@2"}
    assert wardrobe_json(live.root, "show", "rolling")["aliases"]["stable"] == 2
    told = wardrobe_json(live.root, "rollout", "explain", "rolling")["decisions"]
    # Thresholds are frozen once stable has answered enough; that is a record without a change of state.
    events = [entry["event"] for entry in told if entry["event"] != "baseline"]
    assert events == ["start", "loaded", "advance", "promote", "cooled"]


def test_a_version_with_bad_answers_is_taken_back_by_itself(
    live: Live, markers: dict[str, Path], tmp_path: Path
) -> None:
    prepare(live, "rude", markers["alpha"], markers["bravo"])
    with talking(live, "rude") as talk:
        start(live, tmp_path, "rude@2")
        ended = reach(live, "rude", "promoted", "closed", "rolled_back")
        told = time.monotonic()
        time.sleep(2)
    assert (ended["state"], ended["reason"], ended["weight"]) == ("rolled_back", "format", 0)
    assert not talk.failures()
    assert [one.model for one in talk.said if one.began > told + 1] != []
    assert {one.model for one in talk.said if one.began > told + 1} == {"rude@1"}
    assert wardrobe(live.root, "rollout", "start", "rude@2", check=False).returncode == 1
    metrics = httpx.get(f"{live.url}/metrics", timeout=30).text
    assert 'wardrobe_rollout_state{adapter="rude",state="rolled_back"} 1.0' in metrics
    assert "wardrobe_rollback_duration_seconds_count" in metrics


def test_a_version_that_cannot_be_loaded_costs_no_request(
    live: Live, markers: dict[str, Path], tmp_path: Path
) -> None:
    prepare(live, "rotten", markers["alpha"], markers["alpha"])
    weights = live.root / "adapters/rotten/versions/2/adapter_model.safetensors"
    weights.chmod(0o600)
    with weights.open("r+b") as file:
        file.seek(-3, 2)
        file.write(b"\x7f\x7f\x7f")
    with talking(live, "rotten") as talk:
        start(live, tmp_path, "rotten@2")
        ended = reach(live, "rotten", "promoted", "closed", "rolled_back")
    assert (ended["state"], ended["reason"]) == ("rolled_back", "forbidden")
    assert not talk.failures()
    assert set(talk.models()) == {"rotten@1"}


def test_feedback_by_the_response_id_is_counted_and_a_forged_one_is_not(
    live: Live, markers: dict[str, Path], tmp_path: Path
) -> None:
    prepare(live, "rated", markers["alpha"], markers["alpha"])
    start(live, tmp_path, "rated@2")
    reach(live, "rated", "ramping", "hold")
    with httpx.Client(base_url=live.url, timeout=60) as client:
        body = {"model": "rated", "messages": [{"role": "user", "content": "Rate me"}], "max_tokens": 4}
        answer = client.post("/v1/chat/completions", json=body).raise_for_status().json()
        right = client.post("/v1/feedback", json={"response_id": answer["id"], "score": 0.75})
        assert right.json()["counted"] is True
        forged = answer["id"][:-1] + ("0" if answer["id"][-1] != "0" else "1")
        wrong = client.post("/v1/feedback", json={"response_id": forged, "score": 0.0})
        assert wrong.json().get("counted") is not True
    wardrobe(live.root, "rollout", "abort", "rated", "--why", "test")
    assert reach(live, "rated", "rolled_back")["reason"] == "abort"
