"""The router on a real uvicorn: names, answers, headers, ids, limits, drain, death."""

from __future__ import annotations

import asyncio
import concurrent.futures
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from prometheus_client import CollectorRegistry
from starlette.types import Message

from registry.entries.keys import KeyStore
from registry.entries.rights import Scope
from registry.store import Registry
from serve.rollout.assignment import unit_digest
from serve.router.app import Router
from serve.router.booking import NO_UNIT
from serve.settings import RequestLimits, ResidencySettings, ServeSettings
from tests.fakes.engine import FakeEngine
from tests.fakes.inner import InnerApp
from tests.fakes.served import BASE, Served, make_root, publish, serve, wait_until


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return make_root(tmp_path)


@pytest.fixture
def served(registry: Registry, tmp_path: Path) -> Iterator[Served]:
    """Serve `support` with the versions 1 (stable), 2, 3 and the alias `next` -> 2."""
    for seed in (1, 2, 3):
        publish(registry, tmp_path, "support", seed)
    registry.set_alias("support", "next", 2, who="tester")
    with serve(registry, tmp_path) as server:
        yield server


def error(response: httpx.Response) -> dict[str, str]:
    """Return the error after checking its shape."""
    found: dict[str, str] = response.json()["error"]
    assert set(found) == {"message", "type", "param", "code"}
    return found


@pytest.mark.parametrize(
    ("model", "answering", "arm", "letter"),
    [
        ("support", "support@1", "stable", "s"),
        ("support@3", "support@3", "direct", "x"),
        ("support@stable", "support@1", "direct", "x"),
        ("support@next", "support@2", "direct", "x"),
        (BASE, BASE, "base", "b"),
        (None, BASE, "base", "b"),
    ],
)
def test_a_name_is_answered_by_what_it_stands_for(
    served: Served, model: str | None, answering: str, arm: str, letter: str
) -> None:
    response = served.chat(model)
    assert response.status_code == 200
    assert response.json()["model"] == answering
    assert response.headers["x-wardrobe-adapter"] == answering
    assert response.headers["x-wardrobe-arm"] == arm
    answered = served.runtime.ids.verify(response.json()["id"])
    assert answered is not None
    assert (answered.version, answered.arm) == ("base@0" if arm == "base" else answering, letter)


def test_the_digest_header_is_the_versions_own(served: Served) -> None:
    expected = served.registry.version("support", 3).digest
    assert served.chat("support@3").headers["x-wardrobe-digest"] == expected
    assert served.chat(BASE).headers["x-wardrobe-digest"] == served.registry.base.fingerprint


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("nobody", ["adapters: support", f"base: {BASE}"]),
        ("support@9", ["support@9", "1, 2, 3"]),
        ("support@canary", ["no rollout is open"]),
        ("support@beta", ["no alias beta", "next"]),
        ("../../etc/passwd", ["adapters: support"]),
        ("Support", ["adapters: support"]),
        ("", ["adapters: support"]),
        ("support@", ["adapters: support"]),
    ],
)
def test_an_unknown_name_is_a_404_that_lists_what_exists(
    served: Served, model: str, words: list[str]
) -> None:
    response = served.chat(model)
    found = error(response)
    assert (response.status_code, found["code"], found["param"]) == (404, "model_not_found", "model")
    for word in words:
        assert word in found["message"]
    assert served.inner.seen == []
    assert served.metric("wardrobe_rejections_total", reason="unknown_model") == 1
    assert served.outcomes() == {}


def test_an_adapter_without_a_stable_says_how_to_set_one(served: Served) -> None:
    served.publish("fresh", 7, no_stable=True)
    response = served.chat("fresh")
    assert response.status_code == 404
    assert "wardrobe promote fresh@N" in error(response)["message"]
    assert served.chat("fresh@1").status_code == 200


def test_a_quarantined_version_is_refused_with_its_reason(served: Served) -> None:
    served.registry.quarantine("support", 1, "a test says so", who="tester")
    served.runtime.watcher.refresh()
    explicit, routed = served.chat("support@1"), served.chat("support")
    assert (explicit.status_code, routed.status_code) == (409, 503)
    assert "a test says so" in error(explicit)["message"]
    assert "a test says so" in error(routed)["message"]
    wait_until(lambda: "support@1" not in served.engine.resident(), "it is unloaded")


def test_what_is_not_ours_in_the_request_arrives_unchanged(served: Served) -> None:
    body = b'{"model": "support", "messages": [{"role":"user","content":"\\u00e9"}], "n": 1.0, "x": 1e2}'
    headers = {
        "content-type": "application/json",
        "x-request-id": "mine",
        "x-session-id": "s",
        "traceparent": "00-1",
    }
    response = served.client.post("/v1/chat/completions?a=b", content=body, headers=headers)
    (seen,) = served.inner.seen
    assert seen.body == {**json.loads(body), "model": "support@1"}
    assert seen.headers["traceparent"] == "00-1"
    assert int(seen.headers["content-length"]) == len(body.replace(b": ", b":").replace(b", ", b",")) + 2
    assert seen.headers["x-request-id"] != "mine"
    assert response.headers["x-request-id"] == "mine"


@pytest.mark.parametrize("own", ["", "x" * 200, "a b"])
def test_a_request_id_that_is_no_id_is_not_echoed(served: Served, own: str) -> None:
    response = served.client.post("/v1/completions", json={"model": "support"}, headers={"x-request-id": own})
    assert served.runtime.ids.verify(response.headers["x-request-id"]) is not None


def test_a_session_is_one_unit_and_without_a_rollout_nothing_else_is_one(served: Served) -> None:
    def unit(model: str, content: str, **headers: str) -> str:
        body = {"model": model, "messages": [{"role": "user", "content": content}]}
        response = served.client.post("/v1/chat/completions", json=body, headers=headers)
        answered = served.runtime.ids.verify(response.json()["id"])
        assert answered is not None
        return answered.unit

    session = {"x-session-id": "s"}
    assert unit("support", "a", **session) == unit("support", "b", **session) == unit_digest("s")
    assert unit("support", "a") == unit("support@1", "a", **session) == NO_UNIT


def test_the_responses_api_gets_its_id_in_the_body(served: Served) -> None:
    response = served.client.post(
        "/v1/responses", json={"model": "support", "input": "Hi", "request_id": "forged"}
    )
    identity = response.json()["id"]
    assert identity.startswith("resp_")
    answered = served.runtime.ids.verify(identity)
    assert answered is not None
    assert answered.version == "support@1"


def test_tokenize_is_served_under_v1_and_nowhere_else(served: Served) -> None:
    assert served.client.post("/v1/tokenize", json={"model": "support"}).json()["path"] == "/tokenize"
    assert served.client.post("/tokenize", json={"model": "support"}).status_code == 404


@pytest.mark.parametrize(
    "path", ["/invocations", "/adapters", "/ping", "/docs", "//v1/models", "/v1/models/", "/%61dapters"]
)
def test_a_path_that_is_not_listed_never_reaches_the_server_behind(served: Served, path: str) -> None:
    for method in ("GET", "POST", "DELETE", "OPTIONS"):
        response = served.client.request(method, path)
        assert response.status_code == 404
        assert error(response)["code"] == "unknown_url"
    assert served.inner.seen == []


def test_another_method_is_a_405_that_names_the_right_ones(served: Served) -> None:
    response = served.client.get("/v1/chat/completions")
    assert (response.status_code, response.headers["allow"]) == (405, "POST, OPTIONS")
    assert error(response)["code"] == "method_not_allowed"
    assert served.client.delete("/v1/models").status_code == 405
    assert served.client.options("/v1/models").status_code == 204
    head = served.client.head("/v1/models")
    assert (head.status_code, head.content) == (200, b"")


def test_a_websocket_is_refused(served: Served) -> None:
    port = served.client.base_url.port
    with socket.create_connection(("127.0.0.1", port or 0), timeout=5) as connection:
        connection.sendall(
            b"GET /v1/realtime HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
        )
        assert connection.recv(100).split()[1] in {b"403", b"404"}
    assert served.inner.seen == []


def test_a_field_that_names_a_server_path_is_refused(served: Served) -> None:
    response = served.chat("support", lora_path="/etc")
    assert (response.status_code, error(response)["param"]) == (400, "lora_path")
    assert served.chat("support", kv_transfer_params={"remote_host": "x"}).status_code == 400
    assert served.inner.seen == []


@pytest.mark.parametrize("content", [b"", b"[]", b"not json", b'{"model": 5}'])
def test_a_body_that_cannot_be_routed_is_a_400(served: Served, content: bytes) -> None:
    response = served.client.post("/v1/chat/completions", content=content)
    assert (response.status_code, error(response)["code"]) == (400, "invalid_body")


def test_an_error_for_anthropics_clients_has_their_shape_too(served: Served) -> None:
    response = served.client.post("/v1/messages", json={"model": "nobody"})
    assert response.json()["type"] == "error"
    assert error(response)["code"] == "model_not_found"


def test_the_list_of_models_holds_the_base_and_every_adapter_with_its_versions(served: Served) -> None:
    served.publish("fresh", 7, no_stable=True)
    listing = served.client.get("/v1/models").json()
    assert listing["object"] == "list"
    base, fresh, support = listing["data"]
    assert (base["id"], base["parent"], base["object"]) == (BASE, None, "model")
    assert (support["id"], support["parent"], support["root"]) == ("support", BASE, "support@1")
    assert [card["id"] for card in support["versions"]] == ["support@1", "support@2", "support@3"]
    assert support["aliases"] == {"stable": 1, "next": 2}
    assert support["versions"][0]["resident"] is True
    assert (fresh["root"], fresh["digest"]) == (None, None)
    assert str(served.registry.root) not in json.dumps(listing)
    # By it clients size their context, as they do on vLLM itself.
    assert [one["max_model_len"] for one in listing["data"]] == [2048] * 3


def test_one_model_is_shown_by_any_of_its_names(served: Served) -> None:
    shown = {
        name: served.client.get(f"/v1/models/{name}")
        for name in (BASE, "support", "support@3", "support@next")
    }
    assert [response.json()["id"] for response in shown.values()] == list(shown)
    assert shown["support@next"].json()["root"] == "support@2"
    assert {response.json()["max_model_len"] for response in shown.values()} == {2048}
    assert served.client.get("/v1/models/nobody").status_code == 404


def test_concurrent_requests_for_a_cold_version_load_it_once(served: Served) -> None:
    served.engine.load_seconds = 0.05
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        responses = list(pool.map(lambda _: served.chat("support@3"), range(8)))
    assert {response.json()["model"] for response in responses} == {"support@3"}
    assert served.engine.calls.count(("load", "support@3")) == 1


def test_a_broken_version_fails_alone_and_names_why(served: Served) -> None:
    weights = served.registry.version("support", 3).path / "adapter_model.safetensors"
    weights.chmod(0o644)
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(bytes(data))
    response = served.chat("support@3")
    assert response.status_code in {409, 503}
    assert "adapter_model.safetensors" in error(response)["message"]
    assert served.chat("support").status_code == 200
    assert served.registry.quarantined("support", 3) is not None
    assert "support@3" not in served.engine.resident(), "hashed while the engine read it, and taken out"


def test_a_version_without_effect_gets_no_traffic_and_says_so(served: Served) -> None:
    served.engine.without_effect.update({"support@3", "dull@1"})
    explicit = served.chat("support@3")
    assert explicit.status_code == 503
    assert int(explicit.headers["retry-after"]) > 0
    assert "differ from the base's by 0 nats" in error(explicit)["message"]
    served.publish("dull", 9)
    assert served.chat("dull").status_code == 503
    assert served.inner.seen == []
    assert served.outcomes(version="3") == {"engine_error": 1}
    (proof,) = served.registry.attestations("support", 3, "proof")
    assert proof.body["passed"] is False


def test_the_proof_is_stored_once_and_not_asked_of_the_next_replica(
    served: Served, registry: Registry, tmp_path: Path
) -> None:
    assert served.chat("support@2").status_code == 200
    wait_until(lambda: bool(registry.attestations("support", 2, "proof")), "it is stored")
    (proof,) = registry.attestations("support", 2, "proof")
    assert proof.body["passed"] is True
    other = FakeEngine(base_name=BASE)
    other.without_effect.add("support@2")
    with serve(registry, tmp_path, engine=other) as second:
        assert second.chat("support@2").status_code == 200
    assert len(registry.attestations("support", 2, "proof")) == 1


def test_stables_are_loaded_before_the_server_is_ready(registry: Registry, tmp_path: Path) -> None:
    for number, name in enumerate("abc"):
        publish(registry, tmp_path, name, number)
    with serve(registry, tmp_path, engine=FakeEngine(base_name=BASE, capacity=2)) as served:
        assert served.engine.resident() == {"a@1", "b@1"}
        assert served.client.get("/readyz").status_code == 200
        assert served.chat("c").status_code == 200
        assert served.metric("wardrobe_adapter_evictions_total", replica="r1") == 1


def test_a_broken_stable_does_not_keep_the_server_from_starting(registry: Registry, tmp_path: Path) -> None:
    publish(registry, tmp_path, "bad", 1)
    publish(registry, tmp_path, "good", 2)
    engine = FakeEngine(base_name=BASE)
    engine.refusals["bad@1"] = "wrong shapes"
    with serve(registry, tmp_path, engine=engine) as served:
        assert served.client.get("/readyz").status_code == 200
        assert served.chat("good").status_code == 200
        assert "wrong shapes" in error(served.chat("bad"))["message"]


def test_a_new_stable_is_loaded_before_anybody_asks_and_answers_at_once(served: Served) -> None:
    served.registry.promote("support", 3, who="tester")
    wait_until(lambda: "support@3" in served.runtime.resident(), "the new stable is loaded and proved")
    assert served.chat("support").headers["x-wardrobe-adapter"] == "support@3"


def test_a_deleted_version_is_unloaded_and_its_series_go(served: Served) -> None:
    assert served.chat("support@3").status_code == 200
    assert served.outcomes(version="3") == {"ok": 1}
    served.registry.delete("support", 3, who="tester")
    wait_until(lambda: "support@3" not in served.engine.resident(), "it is unloaded")
    assert served.chat("support@3").status_code == 404
    assert served.outcomes(version="3") == {}


class ClingingEngine(FakeEngine):
    """An engine that does not let one version go at the first asking."""

    asked = 0

    async def unload(self, name: str) -> None:
        if name == "bad@1":
            self.asked += 1
            if self.asked == 1:
                raise RuntimeError("the engine is confused")
        await super().unload(name)


def test_a_version_that_will_not_go_does_not_end_the_care_for_the_others(
    registry: Registry, tmp_path: Path
) -> None:
    for number, name in enumerate(("bad", "good")):
        publish(registry, tmp_path, name, number)
    engine = ClingingEngine(base_name=BASE)
    with serve(registry, tmp_path, engine=engine) as served:
        registry.quarantine("bad", 1, "a test says so", who="tester")
        wait_until(lambda: engine.asked, "the first asking")
        registry.quarantine("good", 1, "a test says so", who="tester")
        wait_until(lambda: engine.resident() == frozenset(), "both are unloaded at last")
        assert served.runtime.resident() == ()


def test_a_version_in_use_is_not_evicted_by_another(registry: Registry, tmp_path: Path) -> None:
    for seed in (1, 2):
        publish(registry, tmp_path, "a", seed)
    fast = ResidencySettings(load_timeout_seconds=0.2)
    with serve(registry, tmp_path, engine=FakeEngine(base_name=BASE, capacity=1), residency=fast) as served:
        with served.client.stream(
            "POST", "/v1/chat/completions", json={"model": "a", "play": "slow"}
        ) as stream:
            lines = stream.iter_lines()
            next(lines)
            refused = served.chat("a@2")
            assert refused.status_code == 503
            assert refused.headers["retry-after"] == "1"
            assert served.engine.resident() == {"a@1"}
            served.inner.open = True
            assert "data: [DONE]" in list(lines)
        assert served.chat("a@2").status_code == 200
        assert served.outcomes(version="2") == {"rejected": 1, "ok": 1}


def test_a_body_over_the_limit_is_refused_declared_or_chunked(registry: Registry, tmp_path: Path) -> None:
    with serve(registry, tmp_path, limits=RequestLimits(max_body_bytes=1000)) as served:
        assert served.chat(BASE, pad="x" * 800).status_code == 200
        declared = served.chat(BASE, pad="x" * 1000)
        assert (declared.status_code, declared.headers["connection"]) == (413, "close")
        chunked = served.client.post("/v1/completions", content=iter([b"x" * 600, b"x" * 600]))
        assert chunked.status_code == 413
        assert served.metric("wardrobe_rejections_total", reason="body_too_large") == 2


def test_a_cap_on_tokens_refuses_more_and_fills_in_what_is_missing(
    registry: Registry, tmp_path: Path
) -> None:
    with serve(registry, tmp_path, limits=RequestLimits(max_tokens=5)) as served:
        assert served.chat(BASE, max_tokens=6).status_code == 400
        assert served.chat(BASE).status_code == 200
        assert served.inner.seen[-1].body["max_completion_tokens"] == 5


def test_a_cap_on_concurrency_is_a_429(registry: Registry, tmp_path: Path) -> None:
    slow = {"model": BASE, "play": "slow"}
    with serve(registry, tmp_path, limits=RequestLimits(max_concurrency=1)) as served:
        with served.client.stream("POST", "/v1/chat/completions", json=slow) as stream:
            lines = stream.iter_lines()
            next(lines)
            refused = served.chat(BASE)
            served.inner.open = True
            assert "data: [DONE]" in list(lines)
        assert (refused.status_code, error(refused)["code"]) == (429, "rate_limit_exceeded")
        wait_until(lambda: served.runtime.metrics.inflight() == 0, "the stream is settled")
        assert served.chat(BASE).status_code == 200


def test_draining_refuses_what_is_new_and_finishes_what_is_not(served: Served) -> None:
    with served.client.stream(
        "POST", "/v1/chat/completions", json={"model": "support", "play": "slow"}
    ) as stream:
        lines = stream.iter_lines()
        next(lines)
        served.runtime.drain(on=True)
        refused = served.chat("support")
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert served.client.get("/readyz").status_code == 503
        assert served.client.get("/livez").status_code == 200
        assert served.metric("wardrobe_draining") == 1
        served.inner.open = True
        assert "data: [DONE]" in list(lines)
    served.runtime.drain(on=False)
    assert served.chat("support").status_code == 200


def test_a_dead_engine_is_a_503_and_not_ready(served: Served) -> None:
    served.engine.die()
    response = served.chat("support")
    assert (response.status_code, error(response)["code"]) == (503, "engine_dead")
    assert served.client.get("/readyz").status_code == 503
    assert served.client.get("/livez").status_code == 200


def test_keys_are_asked_for_once_there_are_any(served: Served) -> None:
    store = KeyStore(served.registry.root)
    assert served.chat("support").status_code == 200
    _, infer = store.create([Scope.INFER], who="tester")
    key, admin = store.create([Scope.ADMIN], who="tester")
    wait_until(lambda: served.runtime.keys.enabled, "keys are in force")

    def ask(path: str, token: str | None, *, header: str = "authorization") -> int:
        value = {} if token is None else {header: f"Bearer {token}" if header == "authorization" else token}
        return served.client.get(path, headers=value).status_code

    assert ask("/v1/models", None) == ask("/v1/models", "wardrobe_x_y") == 401
    assert (
        ask("/v1/models", infer)
        == ask("/v1/models", admin)
        == ask("/v1/models", infer, header="x-api-key")
        == ask("/v1/models", infer, header="api-key")
        == 200
    )
    assert ask("/admin/v1/adapters", infer) == 403
    assert ask("/admin/v1/adapters", admin) == 200
    assert ask("/metrics", None) == 401
    assert ask("/metrics", infer) == 200
    assert ask("/livez", None) == ask("/readyz", None) == 200
    refused = served.chat("support")
    assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
    assert served.client.post(
        "/v1/completions", json={}, headers={"authorization": f"Bearer {infer}"}
    ).is_success
    store.revoke(key.id)
    wait_until(lambda: ask("/v1/models", admin) == 401, "the revoked key is refused", 1.5)


def test_the_replica_beats_and_takes_its_heartbeat_away(registry: Registry, tmp_path: Path) -> None:
    publish(registry, tmp_path, "support", 1)
    with serve(registry, tmp_path):
        ((beat, live),) = registry.replicas()
        assert live
        assert (beat.replica, beat.state, beat.resident) == ("r1", "ready", ("support@1",))
        assert beat.base_fingerprint == registry.base.fingerprint
    assert registry.replicas() == []


def test_a_root_that_cannot_be_opened_fails_the_lifespan_and_not_the_constructor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = InnerApp()
    for router in (
        Router(
            inner, settings=ServeSettings(root=tmp_path / "nothing"), engine_factory=lambda _: FakeEngine()
        ),
        _with_settings(monkeypatch, inner, '{"port": "no"}'),
    ):
        messages = _live_until_failure(router)
        assert messages[-1]["type"] == "lifespan.startup.failed"
        assert any(
            word in messages[-1]["message"] for word in ("is not a Wardrobe root", "WARDROBE_SERVE_SETTINGS")
        )


def _with_settings(monkeypatch: pytest.MonkeyPatch, inner: InnerApp, text: str) -> Router:
    monkeypatch.setenv("WARDROBE_SERVE_SETTINGS", text)
    return Router(inner, collectors=CollectorRegistry())


def _live_until_failure(router: Router) -> list[Message]:
    """Play a server's side of the lifespan and return what the router said."""
    sent: list[Message] = []

    async def receive() -> Message:
        if sent:
            await asyncio.sleep(3600)
        return {"type": "lifespan.startup"}

    async def send(message: Message) -> None:
        sent.append(message)

    async def live() -> None:
        task = asyncio.create_task(router({"type": "lifespan"}, receive, send))
        while not sent:  # noqa: ASYNC110 - there is nothing that could set an event
            await asyncio.sleep(0.01)
        task.cancel()

    asyncio.run(live())
    return sent


def test_the_lifespan_behind_is_started_first_and_ended_last(registry: Registry, tmp_path: Path) -> None:
    with serve(registry, tmp_path) as served:
        assert served.inner.lifespan == ["startup"]
    assert served.inner.lifespan == ["startup", "shutdown"]
