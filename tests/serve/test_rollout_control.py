"""Rollouts over HTTP: typed both ways, seen at once, and Alertmanager's deliveries."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from registry.entries.keys import KeyStore
from registry.entries.rights import Scope
from registry.store import Registry
from serve.control.app import build_control
from serve.rollout.decision.states import EventType
from serve.rollout.policy import Policy
from serve.rollout.presets import load_preset
from tests.fakes.control import FakeState, admin_server
from tests.fakes.driving import drive, make_root
from tests.fakes.http_server import served


@pytest.fixture
def registry(tmp_path: Any) -> Registry:
    return make_root(tmp_path)


@pytest.fixture
def http(registry: Registry) -> Iterator[httpx.Client]:
    with admin_server(registry.root) as url, httpx.Client(base_url=f"{url}/admin/v1") as client:
        yield client


def start(http: httpx.Client, registry: Registry, number: int = 2) -> None:
    """Bring a rollout of `support` into its first step."""
    answer = http.post("/rollouts/support", json={"version": number, "policy": "fast", "force": True})
    assert answer.status_code == 201, answer.text
    drive(registry, EventType.LOADED)


def test_start_status_moves_and_history(http: httpx.Client, registry: Registry) -> None:
    assert http.get("/rollouts").json() == {"rollouts": [], "problems": {}}
    started = http.post("/rollouts/support", json={"version": 2, "policy": "fast", "note": "try"})
    assert started.status_code == 201
    assert started.json()["status"]["state"] == "preloading"
    assert started.json()["status"]["who"] == "anonymous"
    drive(registry, EventType.LOADED)
    status = http.get("/rollouts/support").json()
    assert (status["state"], status["weight"], status["step"]) == ("ramping", 1000, 0)
    assert http.post("/rollouts/support/pause", json={"why": "lunch"}).json()["state"] == "paused"
    assert http.post("/rollouts/support/resume").json()["state"] == "ramping"
    assert http.post("/rollouts/support/abort", json={}).json()["state"] == "rolled_back"
    told = http.get("/rollouts/support/explain").json()["decisions"]
    assert [one["event"] for one in told] == ["start", "loaded", "pause", "resume", "abort"]
    assert len(http.get("/rollouts/support/history").json()["decisions"]) == 5
    assert [one["state"] for one in http.get("/rollouts").json()["rollouts"]] == ["rolled_back"]


def test_promote_moves_stable_at_once(http: httpx.Client, registry: Registry) -> None:
    start(http, registry)
    assert http.post("/rollouts/support/promote").json()["state"] == "promoted"
    assert http.get("/adapters").json()["adapters"][0]["adapter"] == "raw"
    assert http.get("/adapters").json()["adapters"][1]["stable"] == 2


def test_the_answering_process_routes_by_it_when_the_answer_leaves(registry: Registry) -> None:
    state = FakeState(registry)

    async def door(scope: Any, receive: Any, send: Any) -> None:
        scope.setdefault("state", {})["who"] = "ana"
        await app(scope, receive, send)

    app = build_control(registry, state)
    with served(door) as url:
        httpx.post(f"{url}/admin/v1/rollouts/support", json={"version": 2}).raise_for_status()
        entry = state.watcher.view.adapters["support"].rollout
        assert entry is not None
        assert (entry.state, entry.who) == ("preloading", "ana")
        httpx.post(f"{url}/admin/v1/rollouts/support/abort").raise_for_status()
        assert state.watcher.view.adapters["support"].rollout is None


def test_a_plan_changes_nothing(http: httpx.Client, registry: Registry) -> None:
    plan = http.post("/rollouts/support/plan", json={"version": 2}).json()
    assert (plan["canary"], plan["requests"], plan["supersedes"]) == ("support@2", 13_000, None)
    assert registry.rollout("support") is None


def test_a_whole_policy_may_be_sent(http: httpx.Client, registry: Registry) -> None:
    policy = load_preset("low-traffic").model_dump(mode="json") | {"name": "night"}
    answer = http.post("/rollouts/support", json={"version": 2, "policy": policy})
    assert answer.json()["status"]["policy"] == "night"
    entry = registry.rollout("support")
    assert entry is not None
    assert Policy.model_validate(entry.policy).shadow == load_preset("low-traffic").shadow


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "text"),
    [
        ("GET", "/rollouts/support", None, 404, "has had no rollout"),
        ("GET", "/rollouts/Support", None, 400, "Support"),
        ("POST", "/rollouts/support", {"version": 9}, 404, "support@9"),
        ("POST", "/rollouts/support", {"version": 1}, 409, "is the stable version already"),
        ("POST", "/rollouts/support", {}, 400, "version"),
        ("POST", "/rollouts/support", {"version": 2, "polcy": "fast"}, 400, "polcy"),
        ("POST", "/rollouts/support", {"version": 2, "policy": "fsat"}, 400, "there is no preset 'fsat'"),
        ("POST", "/rollouts/support", {"version": 2, "policy": "/etc/passwd"}, 400, "there is no preset"),
        ("POST", "/rollouts/support", {"version": 2, "policy": {"stps": []}}, 400, "did you mean steps?"),
        (
            "POST", "/rollouts/support",
            {"version": 2, "policy": {"steps": [{"weight": 6000, "min_units": 1, "min_seconds": 1}]}},
            400, "steps.0.weight",
        ),
        ("POST", "/rollouts/support/abort", None, 404, "has had no rollout"),
        ("POST", "/rollouts/support/explode", None, 404, "is not served here"),
        ("DELETE", "/rollouts/support", None, 405, "does not allow this method"),
        ("POST", "/alertmanager", {"version": "3", "alerts": []}, 400, "version"),
        ("POST", "/alertmanager", {}, 400, "version"),
    ],
)  # fmt: skip
def test_refusals_have_the_shape_of_all_others(
    http: httpx.Client, registry: Registry, method: str, path: str, body: Any, status: int, text: str
) -> None:
    answer = http.request(method, path, json=body)
    assert answer.status_code == status, answer.text
    assert text in answer.json()["error"]["message"]
    assert registry.rollout("support") is None


def test_a_webhook_that_is_no_url_is_refused_and_not_repeated(http: httpx.Client) -> None:
    policy = load_preset("fast").model_dump(mode="json") | {"webhooks": ["SECRET"]}
    answer = http.post("/rollouts/support", json={"version": 2, "policy": policy})
    assert answer.status_code == 400
    assert "webhooks: one of 1 is not an http or https URL" in answer.json()["error"]["message"]
    assert "SECRET" not in answer.text


def test_a_move_that_the_state_does_not_take_is_a_409_naming_both(
    http: httpx.Client, registry: Registry
) -> None:
    start(http, registry)
    answer = http.post("/rollouts/support/resume")
    assert answer.status_code == 409
    assert answer.json()["error"]["code"] == "illegal_move"
    assert "its rollout is ramping and takes no resume" in answer.json()["error"]["message"]


def test_only_an_admin_key_steers(http: httpx.Client, registry: Registry) -> None:
    store = KeyStore(registry.root)
    _, admin = store.create([Scope.ADMIN], who="test")
    _, infer = store.create([Scope.INFER], who="test")
    body = {"version": 2}
    assert http.post("/rollouts/support", json=body).status_code == 401
    narrow = {"authorization": f"Bearer {infer}"}
    assert http.post("/rollouts/support", json=body, headers=narrow).status_code == 403
    assert http.get("/rollouts/support", headers=narrow).status_code == 403
    assert http.post("/alertmanager", json={"version": "4", "alerts": []}, headers=narrow).status_code == 403
    right = {"authorization": f"Bearer {admin}"}
    assert http.post("/rollouts/support", json=body, headers=right).status_code == 201


def delivery(status: str = "firing", minutes: float = 1, /, **labels: str) -> dict[str, Any]:
    """Return what Alertmanager posts for one alert that began `minutes` from now."""
    begins = datetime.now(UTC) + timedelta(minutes=minutes)
    alert = {
        "status": status,
        "labels": {"alertname": "CanaryWorseThanStable", **labels},
        "annotations": {"summary": "2 points worse"},
        "startsAt": begins.isoformat().replace("+00:00", "Z"),
        "endsAt": "0001-01-01T00:00:00Z",
        "generatorURL": "http://prometheus/graph",
        "fingerprint": "abc",
    }
    return {
        "version": "4", "groupKey": "{}", "truncatedAlerts": 0, "status": status, "receiver": "wardrobe",
        "groupLabels": {}, "commonLabels": labels, "commonAnnotations": {}, "externalURL": "http://am",
        "alerts": [alert],
    }  # fmt: skip


def act(http: httpx.Client, body: dict[str, Any]) -> tuple[str, str]:
    answer = http.post("/alertmanager", json=body)
    assert answer.status_code == 200, answer.text
    (action,) = answer.json()["actions"]
    return action["action"], action["because"]


@pytest.mark.parametrize(
    ("labels", "state"),
    [
        ({"wardrobe_action": "abort"}, "rolled_back"),
        ({"action": "rollback", "severity": "page"}, "rolled_back"),
        ({"wardrobe_action": "pause", "severity": "critical"}, "paused"),
        ({"severity": "critical"}, "paused"),
        ({"severity": "page"}, "paused"),
        ({"severity": "ticket"}, "ramping"),
        ({"wardrobe_action": "none", "severity": "critical"}, "ramping"),
        ({}, "ramping"),
    ],
)
def test_what_an_alert_asks_for_is_done_once(
    http: httpx.Client, registry: Registry, labels: dict[str, str], state: str
) -> None:
    start(http, registry)
    body = delivery(adapter="support", **labels)
    action, _ = act(http, body)
    entry = registry.rollout("support")
    assert entry is not None
    assert entry.state == state
    assert action == {"rolled_back": "aborted", "paused": "paused", "ramping": "ignored"}[state]
    length = len(registry.rollout_log("support"))
    assert act(http, body)[0] == "ignored"
    assert len(registry.rollout_log("support")) == length
    if state != "ramping":
        assert entry.reason == "alert"
        assert entry.sentence.endswith("it: CanaryWorseThanStable fires: 2 points worse")


@pytest.mark.parametrize(
    ("body", "because"),
    [
        (delivery("resolved", adapter="support", wardrobe_action="abort"), "it is resolved"),
        (delivery(wardrobe_action="abort"), "it has no label adapter"),
        (delivery(adapter="other", wardrobe_action="abort"), "no rollout is open"),
        (delivery(adapter="../x", wardrobe_action="abort"), "../x"),
        (
            delivery("firing", -5, adapter="support", wardrobe_action="abort"),
            "since before the rollout began",
        ),
    ],
)
def test_an_alert_that_says_nothing_about_the_rollout_is_ignored_and_answered(
    http: httpx.Client, registry: Registry, body: dict[str, Any], because: str
) -> None:
    start(http, registry)
    action, found = act(http, body)
    assert action == "ignored"
    assert because in found
    assert registry.rollout("support").state == "ramping"  # type: ignore[union-attr]


def test_each_alert_of_a_delivery_is_answered(http: httpx.Client, registry: Registry) -> None:
    start(http, registry)
    body = delivery(adapter="support", wardrobe_action="pause")
    body["alerts"] += delivery(adapter="support", wardrobe_action="abort")["alerts"]
    body["alerts"] += delivery(adapter="support", wardrobe_action="abort")["alerts"]
    actions = http.post("/alertmanager", json=body).json()["actions"]
    assert [one["action"] for one in actions] == ["paused", "aborted", "ignored"]
    assert {one["alert"] for one in actions} == {"CanaryWorseThanStable"}
