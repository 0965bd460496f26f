"""An open rollout seen by a group for which the base model does not exist, beside one for which it does."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from registry.store import Registry
from serve.rollout.assignment import Arm
from serve.rollout.policy import EvidenceShares
from serve.router.booking import NO_UNIT
from tests.fakes.served import BASE, QUIET, publish
from tests.fakes.two_groups import HIDDEN, ROWS, SEEN, TwoGroups, two_groups

CHAT = "/v1/chat/completions"
EVERYBODY = QUIET.model_copy(update={"evidence": EvidenceShares(group_share=1, key_share=1)})
"""A policy that counts whoever comes, however much."""


@pytest.fixture
def world(registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TwoGroups]:
    """The controller looks once, at the start."""
    monkeypatch.setattr("serve.rollout.decision.controller.TICK_SECONDS", 3600.0)
    with two_groups(registry, tmp_path) as found:
        yield found


def arms(world: TwoGroups, key: str, count: int = 60, **fields: object) -> Counter[str]:
    """Begin conversations, and count by which arm each was answered."""
    found: Counter[str] = Counter()
    for number in range(count):
        turns = [{"role": "user", "content": f"question {number}"}]
        answer = world.ask("POST", CHAT, key=key, json={"model": SEEN, "messages": turns, **fields})
        assert answer.status_code == 200
        assert key == "whole" or BASE not in answer.text + str(answer.headers)
        found[answer.headers["x-wardrobe-arm"]] += 1
    return found


def test_the_share_of_the_base_is_answered_by_stable_and_is_no_evidence(world: TwoGroups) -> None:
    recorder = world.served.open_rollout(EVERYBODY, weight=2_000, base_weight=5_000)
    whole = arms(world, "whole")
    booked = {arm: recorder.segment.arm(arm).units for arm in (Arm.STABLE, Arm.CANARY, Arm.BASE)}
    assert min(whole.values()) > 0
    assert set(whole) == {"stable", "canary", "base"}
    ours = arms(world, "ours")
    assert ours == {"stable": whole["stable"] + whole["base"], "canary": whole["canary"]}
    world.served.settled()
    # The same conversations: those of the base's share are booked nowhere, the others where they belong.
    assert {arm: recorder.segment.arm(arm).requests for arm in booked} == {
        Arm.STABLE: 2 * whole["stable"],
        Arm.CANARY: 2 * whole["canary"],
        Arm.BASE: whole["base"],
    }


def test_what_the_base_would_have_answered_cannot_be_rated_as_stables(world: TwoGroups) -> None:
    world.served.open_rollout(weight=0, base_weight=10_000)
    answer = world.ask("POST", CHAT, json={"model": SEEN, "messages": [{"role": "user", "content": "a"}]})
    answered = world.served.runtime.ids.verify(answer.json()["id"])
    assert answered is not None
    assert (answered.version, answered.arm, answered.unit) == (f"{SEEN}@1", "s", NO_UNIT)
    rated = world.ask("POST", "/v1/feedback", json={"response_id": answer.json()["id"], "score": 0})
    assert rated.json()["counted"] is False


def test_where_the_base_is_the_control_the_name_is_one_without_stable(world: TwoGroups) -> None:
    new, bare = f"{SEEN}-new", f"{SEEN}-bare"
    for adapter, seed in ((bare, 31), (bare, 32), (new, 33), (new, 34)):
        publish(world.served.registry, world.served.folder, adapter, seed, no_stable=True)
    world.change("ours", adapters=(f"{SEEN}*",))
    world.served.open_rollout(adapter=new, weight=5_000, stable=0)
    body = {"messages": [{"role": "user", "content": "a"}]}
    plain = world.ask("POST", CHAT, json={**body, "model": bare})
    hidden = world.ask("POST", CHAT, json={**body, "model": new})
    assert plain.status_code == hidden.status_code == 404
    assert plain.text.replace(bare, new) == hidden.text
    for name, answering in (("canary", 2), ("1", 1)):
        answer = world.ask("POST", CHAT, json={**body, "model": f"{new}@{name}"})
        assert answer.headers["x-wardrobe-adapter"] == f"{new}@{answering}"
    card = world.ask("GET", f"/v1/models/{new}")
    assert BASE not in card.text
    assert card.json()["rollout"] is None
    assert world.ask("POST", CHAT, key="whole", json={**body, "model": new}).status_code == 200


def test_a_canary_that_failed_is_rescued_by_what_exists_for_the_group_and_copies_are_told_nobody(
    world: TwoGroups,
) -> None:
    world.served.open_rollout(weight=5_000, base_weight=2_000, shadow=5_000)
    world.served.inner.plays[f"{SEEN}@2"] = "500"
    found = arms(world, "ours")
    assert set(found) == {"stable"}, "the canary's were rescued, the base's are stable's"
    world.served.settled()
    asked = {seen.body["model"] for seen in world.served.inner.seen}
    assert f"{SEEN}@2" in asked


def test_a_witness_from_the_base_is_heard_by_nobody_but_the_server(world: TwoGroups) -> None:
    world.served.open_rollout(weight=0)
    world.served.inner.plays[f"{SEEN}@1"] = "500"
    answer = world.ask("POST", CHAT, json={"model": SEEN, "messages": [{"role": "user", "content": "a"}]})
    world.served.settled()
    assert answer.status_code == 500
    assert BASE not in answer.text + str(answer.headers)
    assert BASE in {seen.body["model"] for seen in world.served.inner.seen}, "it was asked as a witness"


def test_a_batch_answers_what_exists_for_its_keys_group(world: TwoGroups) -> None:
    models = (SEEN, HIDDEN, "ombra", BASE, "tany", f"{HIDDEN}@1", "ombra@1")
    lines = [
        {
            "custom_id": name,
            "method": "POST",
            "url": CHAT,
            "body": {"model": name, "messages": [], "max_tokens": 1},
        }
        for name in models
    ]
    text = "\n".join(map(json.dumps, lines)).encode()
    sent = world.ask("POST", "/v1/files", files={"file": ("a", text)}, data={"purpose": "batch"})
    body = {"input_file_id": sent.json()["id"], "endpoint": CHAT, "completion_window": "24h"}
    batch = world.ask("POST", "/v1/batches", json=body).json()
    ended = world.wait_for_batch(batch["id"])
    errors = world.ask("GET", f"/v1/files/{ended['error_file_id']}/content").text.splitlines()
    told = {line["custom_id"]: line["response"] for line in map(json.loads, errors)}
    assert set(told) == set(models) - {SEEN}
    assert {one["status_code"] for one in told.values()} == {404}
    for hidden, never in ((HIDDEN, "ombra"), (BASE, "tany"), (f"{HIDDEN}@1", "ombra@1")):
        first, second = (json.dumps(told[name]["body"]).replace(name, "") for name in (hidden, never))
        assert first == second
    assert ended["request_counts"]["completed"] == 1


def test_a_job_of_a_group_goes_where_its_keys_can_ask_for_it(world: TwoGroups) -> None:
    rows = world.ask("POST", "/v1/files", files={"file": ("a", ROWS)}, data={"purpose": "fine-tune"})
    body = {"model": f"{SEEN}@1", "training_file": rows.json()["id"]}
    for more, adapter in (({"suffix": SEEN}, SEEN), ({}, None), ({"x_wardrobe": {"name": SEEN}}, SEEN)):
        made = world.ask("POST", "/v1/fine_tuning/jobs", json={**body, **more})
        named = made.json()["x_wardrobe"]["adapter"]
        assert named == adapter or named.startswith("ft-")
    world.change("ours", adapters=(SEEN,))
    refused = world.ask("POST", "/v1/fine_tuning/jobs", json=body)
    assert refused.status_code == 400
    assert f"has the adapters {SEEN}" in refused.json()["error"]["message"]
