"""What a router does again and again goes on whatever it meets, and says so."""

from __future__ import annotations

import os
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from registry.entries.keys import KeyStore, keys_folder
from registry.entries.rights import Scope
from registry.errors import Conflict
from registry.store import Registry
from serve.preflight import require_free_name
from serve.router.upkeep import SERVER
from tests.fakes.mounts import away, back
from tests.fakes.served import Served, serve, wait_until

ERRORS = (OSError(5, "Input/output error"), RuntimeError("odd"), RecursionError("too deep"), MemoryError())


def shut(registry: Registry) -> Callable[[], None]:
    """Make the keys unreadable, as a mount with a bad moment does; return what undoes it."""
    folder = keys_folder(registry.root)
    aside = folder.rename(folder.with_name("aside"))
    folder.symlink_to(folder)

    def undo() -> None:
        folder.unlink()
        aside.rename(folder)

    return undo


def ask(served: Served, token: str | None) -> int:
    headers = {} if token is None else {"authorization": f"Bearer {token}"}
    body = {"model": "support", "messages": [{"role": "user", "content": "Hello"}]}
    return served.client.post("/v1/chat/completions", json=body, headers=headers).status_code


def test_every_work_that_goes_on_survives_what_its_turn_raises(served: Served) -> None:
    works = served.runtime.background.works
    assert set(works) == {
        "batches", "engine", "feedback", "heartbeat", "housekeeping", "keys", "limits", "proofs", "rollouts",
        "traffic", "usage", "view", "watcher",
    }  # fmt: skip
    left = {name: list(ERRORS) for name in works}
    before = {name: work.failures for name, work in works.items()}

    def spoil(name: str, turn: Callable[[], Awaitable[None] | None]) -> Callable[[], Awaitable[None] | None]:
        def spoilt() -> Awaitable[None] | None:
            if left[name]:
                raise left[name].pop()
            return turn()

        return spoilt

    for name, work in works.items():
        work.every_seconds = min(work.every_seconds, 0.01)
        work.turn = spoil(name, work.turn)  # type: ignore[assignment]
    wait_until(lambda: not any(left.values()), "each has failed in every way", 30.0)
    wait_until(lambda: not any(work.in_a_row for work in works.values()), "each goes on", 30.0)
    assert {name: work.failures - before[name] for name, work in works.items()} == dict.fromkeys(works, 4)
    for name in works:
        assert served.metric("wardrobe_background_failures_total", task=name) >= 4
    assert served.chat().status_code == 200
    version = served.publish("support", 2, no_stable=True)
    served.registry.promote("support", version.number, who="tester")
    wait_until(
        lambda: served.chat().headers["x-wardrobe-adapter"] == version.name, "the registry is followed"
    )


def test_a_revocation_takes_effect_after_the_keys_could_not_be_read(
    registry: Registry, tmp_path: Path
) -> None:
    store = KeyStore(registry.root)
    info, token = store.create([Scope.INFER], who="tester")
    with serve(registry, tmp_path) as served:
        assert ask(served, token) == 200
        undo = shut(registry)
        wait_until(lambda: served.runtime.background.works["keys"].problem, "it is noticed")
        assert served.client.get("/readyz").json()["status"] == "degraded"
        assert ask(served, token) == 200  # for a while
        undo()
        store.revoke(info.id)
        _, fresh = store.create([Scope.INFER], who="tester")
        wait_until(lambda: ask(served, token) == 401, "the revoked key is refused")
        assert ask(served, fresh) == 200
        assert served.metric("wardrobe_background_failures_total", task="keys") >= 1


def test_keys_that_cannot_be_renewed_for_too_long_let_nobody_in(registry: Registry, tmp_path: Path) -> None:
    _, token = KeyStore(registry.root).create([Scope.ADMIN], who="tester")
    bearer = {"authorization": f"Bearer {token}"}
    with serve(registry, tmp_path, keys_stale_seconds=0.8) as served:
        undo = shut(registry)
        wait_until(lambda: ask(served, token) == 503, "the door closes")
        ready = served.client.get("/readyz")
        assert (ready.status_code, ready.json()["status"]) == (503, "not ready")
        assert "keys could not be renewed for" in ready.json()["reasons"][0]
        for path in ("/v1/models", "/admin/v1/status"):
            refused = served.client.get(path, headers=bearer)
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "keys_unknown")
            assert refused.headers["retry-after"] == "5"
        assert served.client.get("/metrics", headers=bearer).status_code == 200
        assert served.client.get("/livez").status_code == 200
        assert served.metric("wardrobe_keys_age_seconds") > 0.8
        undo()
        wait_until(lambda: ask(served, token) == 200, "the door opens")
        assert served.client.get("/readyz").status_code == 200


def test_keys_that_are_lost_do_not_open_the_server_not_even_after_a_restart(
    registry: Registry, tmp_path: Path
) -> None:
    for required in (False, True):
        KeyStore(registry.root).create([Scope.INFER], who="tester")
        shutil.rmtree(keys_folder(registry.root))
        with serve(registry, tmp_path, keys_required=required) as served:
            assert ask(served, None) == 503
            assert "though keys were made" in served.client.get("/readyz").json()["reasons"][0]
            _, token = KeyStore(registry.root).create([Scope.INFER], who="tester")
            wait_until(lambda token=token: ask(served, token) == 200, "a new key opens it")  # type: ignore[misc]
            assert ask(served, None) == 401


def test_a_server_that_must_have_keys_answers_nobody_without_one(registry: Registry, tmp_path: Path) -> None:
    with serve(registry, tmp_path, keys_required=True) as served:
        assert ask(served, None) == 503


def test_a_root_that_is_away_for_a_while_stops_nothing_and_nothing_is_lost(served: Served) -> None:
    registry = served.registry
    answered = served.chat()
    elsewhere = away(registry)
    wait_until(lambda: served.runtime.background.works["heartbeat"].problem, "it is noticed", 20.0)
    assert served.chat().status_code == 200
    told = served.client.get("/readyz").json()
    assert told["status"] == "degraded"
    assert any("is not there any more" in problem for problem in told["problems"])
    refused = served.client.post("/v1/feedback", json={"adapter": "support", "score": 1})
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "server_is_overloaded")
    assert "cannot be kept now" in refused.json()["error"]["message"]
    for method, path in (
        ("GET", "/adapters/support"),
        ("GET", "/status"),
        ("GET", "/adapters/support/versions/1/files/adapter_config.json"),
        ("PUT", "/adapters/support/aliases/mine"),
    ):
        answer = served.client.request(
            method, f"/admin/v1{path}", json={"version": 1} if method == "PUT" else None
        )
        assert answer.status_code == 503, (path, answer.text)
        assert answer.json()["error"]["code"] == "root_away"
    assert list(registry.root.iterdir()) == []
    back(registry, elsewhere)
    wait_until(lambda: not served.runtime.problems(), "all goes on", 20.0)
    assert [live for _, live in registry.replicas()] == [True]
    kept = served.client.post("/v1/feedback", json={"response_id": answered.json()["id"], "score": 1})
    assert kept.status_code == 202
    wait_until(lambda: list((registry.root / "feedback").rglob("*.jsonl")), "feedback is written")


def test_a_server_starts_and_serves_on_a_root_that_cannot_be_written(
    registry: Registry, tmp_path: Path
) -> None:
    (registry.root / "replicas").rmdir()
    (registry.root / "replicas").symlink_to("/proc")  # where not even root may write
    (registry.root / "keys" / "response-id").mkdir(parents=True)
    with serve(registry, tmp_path) as served:
        assert served.chat().status_code == 200
        told = served.client.get("/readyz").json()
        assert told["status"] == "degraded"
        assert {problem.partition(":")[0] for problem in told["problems"]} == {"heartbeat", "response ids"}
        assert served.metric("wardrobe_problems", replica="r1") == 2
        assert served.metric("wardrobe_background_failing", task="heartbeat") == 1


def test_a_proof_that_cannot_be_stored_holds_here_and_is_stored_later(served: Served) -> None:
    folder = served.registry.root / "adapters" / "fresh" / "attestations"
    folder.parent.mkdir(parents=True)
    folder.write_bytes(b"in the way")
    version = served.publish("fresh", 7)
    assert served.chat("fresh").status_code == 200
    assert not served.registry.catalogue.attestations.proved("fresh", version.number)
    folder.unlink()
    wait_until(
        lambda: served.registry.catalogue.attestations.proved("fresh", version.number), "it is stored", 20.0
    )


def test_a_heartbeat_says_what_the_replica_cannot_do(served: Served) -> None:
    (served.registry.root / "adapters" / "support" / "aliases" / "stable" / "2.json").write_bytes(b"{")
    served.registry.catalogue.mark("support")
    wait_until(
        lambda: any("support" in text for found, _ in served.registry.replicas() for text in found.problems),
        "the heartbeat tells it",
    )
    (found,) = served.client.get("/admin/v1/replicas").json()["replicas"]
    assert found["problems"]
    assert served.chat().status_code == 200  # as it was last seen


def test_a_second_replica_of_one_name_does_not_start_while_the_first_lives(
    registry: Registry, tmp_path: Path
) -> None:
    said: list[str] = []
    with serve(registry, tmp_path):
        (found,) = [found for found, _ in registry.replicas()]
        assert found.server == SERVER
        with pytest.raises(Conflict, match="give this one another name with --replica"):
            require_free_name(registry, "r1", said.append)
        require_free_name(registry, "r2", said.append)
    require_free_name(registry, "r1", said.append)  # it ended in order
    assert said == ["replica r1 was alive a moment ago; waiting whether it still is"]


def test_the_housekeeping_removes_what_is_kept_no_longer(served: Served) -> None:
    path = served.registry.root / "feedback" / "support" / "gone" / "2020-01-01.jsonl"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"{}\n")
    os.utime(path, (1e9, 1e9))
    served.runtime.upkeep._tidied -= 4_000.0
    served.runtime.background.works["housekeeping"].every_seconds = 0.01
    wait_until(lambda: not path.exists(), "what is too old is removed")


def test_a_key_that_sends_too_much_feedback_is_told_to_wait(registry: Registry, tmp_path: Path) -> None:
    from serve.settings import RequestLimits

    limits = RequestLimits(feedback_bytes_per_hour=10_000)
    with serve(registry, tmp_path, limits=limits) as served:
        body = {"adapter": "support", "score": 0.5, "comment": "x" * 4_000}
        statuses = [served.client.post("/v1/feedback", json=body).status_code for _ in range(4)]
        assert statuses == [202, 202, 429, 429]
        refused = served.client.post("/v1/feedback", json=body)
        assert refused.headers["retry-after"] == "60"
        assert "limits.feedback_bytes_per_hour" in refused.json()["error"]["message"]
        assert served.metric("wardrobe_rejections_total", reason="feedback_budget") == 3
        assert served.chat().status_code == 200
