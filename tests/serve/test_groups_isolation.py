"""What divides groups from each other in the engine: the prefix cache's salt, and who may set priorities."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from registry.entries.groups import GroupStore
from registry.entries.keys import KeyStore
from registry.entries.rights import Group, Scope
from registry.store import Registry
from serve.protocol.paths import ENDPOINTS, PathKind
from tests.fakes.served import Served, serve, wait_until
from tests.fakes.two_groups import SEEN, TwoGroups, two_groups

ASKED = {
    "model": SEEN,
    "messages": [{"role": "user", "content": "a"}],
    "prompt": "a",
    "input": "a",
    "max_tokens": 4,
}
CHAT = "/v1/chat/completions"
ANSWERED = [path.decode() for path, one in ENDPOINTS.items() if one.kind is PathKind.INFERENCE and one.proves]


@pytest.fixture
def served(registry: Registry, tmp_path: Path) -> Iterator[Served]:
    """A server whose operator has chosen vLLM's order by priority, so that clients may set one."""
    with serve(registry, tmp_path, vllm={"scheduling_policy": "priority"}) as server:
        yield server


@pytest.fixture
def world(registry: Registry, tmp_path: Path) -> Iterator[TwoGroups]:
    with two_groups(registry, tmp_path) as found:
        found.change("theirs", adapters=("*",))
        yield found


def salt(world: TwoGroups, key: str, path: str = CHAT, **fields: Any) -> Any:
    """Ask, and return the salt that arrived behind the router."""
    answer = world.ask("POST", path, key=key, json={**ASKED, **fields})
    assert answer.status_code == 200, answer.text
    return world.served.inner.seen[-1].body.get("cache_salt")


@pytest.mark.parametrize(
    "path",
    [path.decode() for path, one in ENDPOINTS.items() if one.kind is PathKind.INFERENCE and one.proves],
)
def test_each_group_has_a_salt_of_its_own_wherever_a_version_answers(world: TwoGroups, path: str) -> None:
    salts = {key: salt(world, key, path) for key in ("ours", "theirs", "whole")}
    assert len(set(salts.values())) == 3
    assert salts == {key: salt(world, key, path) for key in salts}
    for found in salts.values():
        assert len(found) == 32
        assert int(found, 16) >= 0


def test_a_client_divides_its_own_part_and_reaches_no_others(world: TwoGroups) -> None:
    theirs = salt(world, "theirs")
    own = {key: salt(world, key, cache_salt="mine") for key in ("ours", "theirs")}
    assert own["ours"] != own["theirs"]
    assert own["ours"] == salt(world, "ours", cache_salt="mine")
    tried = [theirs, own["theirs"], "", "mine2", "theirs", "\x00"]
    found = [salt(world, "ours", cache_salt=one) for one in tried if one]
    assert not {theirs, own["theirs"], *own.values()} & set(found)
    assert salt(world, "ours", cache_salt=None) == salt(world, "ours")


@pytest.mark.parametrize("wrong", ["", 7, ["a"], {"a": 1}])
def test_what_is_no_salt_is_left_to_vllm_which_refuses_it(world: TwoGroups, wrong: object) -> None:
    assert salt(world, "ours", cache_salt=wrong) == wrong


def test_every_replica_has_the_same_salts(world: TwoGroups, tmp_path: Path) -> None:
    with serve(world.served.registry, tmp_path, replica="r2") as other:
        again = TwoGroups(other, world.keys, world.ids)
        assert salt(again, "ours") == salt(world, "ours")


def test_copies_and_rescues_have_the_salt_of_the_request(world: TwoGroups) -> None:
    world.served.open_rollout(weight=10_000)
    world.served.inner.plays[f"{SEEN}@2"] = "500"
    before = len(world.served.inner.seen)
    wanted = salt(world, "ours", cache_salt="mine")
    world.served.settled()
    asked = world.served.inner.seen[before:]
    assert {one.body["model"] for one in asked} >= {f"{SEEN}@1", f"{SEEN}@2"}
    assert {one.body["cache_salt"] for one in asked} == {wanted}


def test_a_priority_is_for_groups_that_may_set_one(world: TwoGroups) -> None:
    for more in ({"json": {**ASKED, "priority": -5}}, {"json": ASKED, "headers": {"X-Vllm-Priority": "-5"}}):
        refused = world.ask("POST", CHAT, **more)
        assert refused.status_code == 400
        assert refused.json()["error"]["param"] == "priority"
        assert "group `ours`" in refused.json()["error"]["message"]
    assert world.ask("POST", CHAT, json={**ASKED, "priority": None}).status_code == 200
    world.change("ours", priority=True)
    assert world.ask("POST", CHAT, json={**ASKED, "priority": -5}).status_code == 200
    assert world.ask("POST", CHAT, key="whole", json={**ASKED, "priority": -5}).status_code == 400


def test_without_groups_nothing_is_salted_or_refused(served: Served) -> None:
    assert served.chat(SEEN, priority=-5, cache_salt="mine").status_code == 200
    seen = served.inner.seen[-1].body
    assert seen["cache_salt"] == "mine"
    assert served.chat(SEEN).status_code == 200
    assert "cache_salt" not in served.inner.seen[-1].body


def test_a_default_that_was_changed_alone_shares_its_cache_with_nobody(served: Served) -> None:
    store, keys = GroupStore(served.registry.root), served.runtime.keys
    store.change("default", lambda group: Group("default", adapters=("other",)), who="tester")
    wait_until(lambda: served.chat(SEEN).status_code == 404, "it is seen")
    store.change("default", lambda group: Group("default", base=False), who="tester")
    wait_until(lambda: served.chat(SEEN).status_code == 200, "it is seen")
    assert "cache_salt" not in served.inner.seen[-1].body
    assert served.chat(None).status_code == 404
    assert served.chat(SEEN, priority=1).status_code == 400, "a group was changed, so its word counts"
    assert not keys.enabled


def test_an_upgraded_root_goes_on_as_before_until_a_group_is_made(served: Served) -> None:
    _, token = KeyStore(served.registry.root).create({Scope.INFER}, who="tester")
    headers = {"authorization": f"Bearer {token}"}
    body = {**ASKED, "priority": 3, "cache_salt": "mine"}
    wait_until(lambda: served.chat(SEEN).status_code == 401, "keys are in use")
    assert served.client.post(CHAT, json=body, headers=headers).status_code == 200
    assert served.inner.seen[-1].body["cache_salt"] == "mine"
    listed = served.client.get("/v1/models", headers=headers).json()["data"]
    assert [one["id"] for one in listed] == ["tiny", SEEN]
    GroupStore(served.registry.root).create(Group("another"), who="tester")
    wait_until(
        lambda: served.client.post(CHAT, json=body, headers=headers).status_code == 400, "a group is in use"
    )
    del body["priority"]
    assert served.client.post(CHAT, json=body, headers=headers).status_code == 200
    assert served.inner.seen[-1].body["cache_salt"] != "mine"
    assert served.client.get("/v1/models", headers=headers).json()["data"] != []
