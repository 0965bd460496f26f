"""The admin API over a real server: what it answers, who may ask, and the shape of every refusal."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import httpx
import pytest

from registry.entries.keyring import KeyRing
from registry.entries.keys import KeyStore
from registry.entries.rights import Scope
from registry.errors import InvalidName, StorageFailed
from registry.names import check_adapter_name, check_alias_name
from registry.store import Registry
from registry.views.view import View
from serve.control.app import build_control, control_schema
from serve.control.layer import MAX_JSON_BYTES
from tests.fakes.adapters import make_adapter
from tests.fakes.base import make_base
from tests.fakes.control import Door, FakeState, admin_server
from tests.fakes.http_server import served
from tests.fakes.store import with_reserve


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    registry = Registry.init(with_reserve(tmp_path / "root"), make_base(tmp_path / "tiny"))
    for seed in (1, 2):
        registry.publish("support", make_adapter(tmp_path / f"a{seed}", seed=seed), who="test")
    return registry


@pytest.fixture
def http(registry: Registry) -> Iterator[httpx.Client]:
    with admin_server(registry.root) as url, httpx.Client(base_url=f"{url}/admin/v1") as client:
        yield client


def refusal(answer: httpx.Response) -> dict[str, Any]:
    """Return the inside of an OpenAI-shaped error, after checking its shape."""
    body = answer.json()
    assert list(body) == ["error"], body
    assert list(body["error"]) == ["message", "type", "param", "code"]
    assert isinstance(body["error"]["message"], str)
    error: dict[str, Any] = body["error"]
    return error


def test_a_write_is_seen_by_the_next_read(http: httpx.Client) -> None:
    before = http.get("/adapters").json()["adapters"]
    assert [(one["adapter"], one["stable"], one["latest"]) for one in before] == [("support", 1, 2)]
    moved = http.post("/adapters/support/promote", json={"version": 2}).json()
    assert (moved["alias"], moved["version"], moved["who"], moved["why"]) == (
        "stable", 2, "anonymous", "promote",
    )  # fmt: skip
    assert http.get("/adapters").json()["adapters"][0]["stable"] == 2
    assert http.post("/adapters/support/rollback").json()["version"] == 1
    assert http.get("/adapters").json()["adapters"][0]["stable"] == 1
    assert http.put("/adapters/support/aliases/night", json={"version": 2}).json()["alias"] == "night"
    assert http.get("/adapters/support").json()["aliases"] == {"night": 2, "stable": 1}
    assert http.delete("/adapters/support/versions/2").status_code == 409
    removed = http.delete("/adapters/support/aliases/night")
    assert (removed.status_code, removed.json()["version"]) == (200, None)
    assert http.delete("/adapters/support/aliases/night").status_code == 404
    assert http.get("/adapters/support").json()["aliases"] == {"stable": 1}
    entries = http.get("/audit").json()["entries"]
    assert [one["subject"] for one in entries if one["detail"].startswith("removed")] == ["support@night"]
    http.put("/adapters/support/aliases/night", json={"version": 1})
    assert http.delete("/adapters/support/versions/2").json()["deleted"] is True
    assert http.get("/adapters").json()["adapters"][0]["versions"] == 1


def test_one_version_its_files_and_the_history(http: httpx.Client, registry: Registry) -> None:
    version = http.get("/adapters/support/versions/1").json()
    assert version["digest"] == registry.version("support", 1).digest
    for file in version["files"]:
        answer = http.get(f"/adapters/support/versions/1/files/{file['path']}")
        assert len(answer.content) == file["size"]
    assert http.get("/adapters/support/versions/1/files/manifest.json").status_code == 404
    moves = http.get("/adapters/support/history").json()["moves"]
    assert [(move["alias"], move["version"]) for move in moves] == [("stable", 1)]
    listed = http.get("/adapters/support/versions").json()
    assert [one["version"] for one in listed["versions"]] == [1, 2]


def test_drain_is_switched_on_and_off(http: httpx.Client) -> None:
    assert http.get("/drain").json() == {"replica": "fake-1", "draining": False}
    assert http.post("/drain").json()["draining"] is True
    assert http.get("/drain").json()["draining"] is True
    assert http.post("/drain", json={"draining": False}).json()["draining"] is False


def test_replicas_status_audit_verify_and_gc(http: httpx.Client) -> None:
    assert http.get("/replicas").json() == {"replicas": []}
    status = http.get("/status").json()
    assert (status["adapters"], status["versions"], status["base"]["name"]) == (1, 2, "tiny")
    entries = http.get("/audit").json()["entries"]
    assert {entry["action"] for entry in entries} >= {"publish", "alias"}
    assert http.get("/audit", params={"since": time.time() + 60}).json() == {"entries": []}
    assert http.post("/verify").json()["ok"] is True
    one = http.post("/verify", json={"adapter": "support", "version": 2}).json()
    assert [result["name"] for result in one["results"]] == ["support@2"]
    assert http.post("/gc").json()["applied"] is False


def test_with_keys_only_an_admin_key_enters(http: httpx.Client, registry: Registry) -> None:
    store = KeyStore(registry.root)
    admin, admin_token = store.create([Scope.ADMIN], who="test")
    _, infer_token = store.create([Scope.INFER], who="test")
    answer = http.get("/adapters")
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert refusal(answer)["type"] == "authentication_error"
    wrong = http.get("/adapters", headers={"authorization": f"Bearer {admin_token}x"})
    assert wrong.status_code == 401
    narrow = http.get("/adapters", headers={"authorization": f"Bearer {infer_token}"})
    assert narrow.status_code == 403
    assert "admin" in refusal(narrow)["message"]
    right = {"authorization": f"Bearer {admin_token}"}
    assert http.get("/adapters", headers=right).status_code == 200
    moved = http.post("/adapters/support/promote", json={"version": 2}, headers=right).json()
    assert moved["who"] == admin.id
    store.revoke(admin.id)
    assert http.get("/adapters", headers=right).status_code == 401


def test_without_a_router_nobody_is_answered(registry: Registry) -> None:
    with served(build_control(registry, FakeState(registry))) as url:
        for method, path in (("GET", "adapters"), ("POST", "gc"), ("POST", "drain"), ("GET", "status")):
            answer = httpx.request(method, f"{url}/admin/v1/{path}")
            assert answer.status_code == 401
            assert "router" in refusal(answer)["message"]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "param", "code"),
    [
        ("GET", "/adapters/nothing", None, 404, "name", "not_found"),
        ("GET", "/adapters/support/versions/9", None, 404, "version", "not_found"),
        ("GET", "/adapters/support/versions/zero", None, 400, "number", "invalid_request"),
        ("GET", "/adapters/support/versions/0", None, 400, "number", "invalid_request"),
        ("GET", "/adapters/support/versions/9999999999", None, 400, "number", "invalid_request"),
        ("GET", "/adapters/Support", None, 400, "name", "invalid_name"),
        ("GET", "/adapters/a%00b", None, 400, "name", "invalid_name"),
        ("GET", "/adapters/%ff%fe", None, 400, "name", "invalid_name"),
        ("GET", "/adapters/..%2f..%2fetc", None, 404, None, "unknown_url"),
        ("GET", "/adapters/" + "x" * 5000, None, 400, "name", "invalid_name"),
        ("GET", "/nothing", None, 404, None, "unknown_url"),
        ("GET", "/adapters/", None, 404, None, "unknown_url"),
        ("PATCH", "/adapters", None, 405, None, "method_not_allowed"),
        ("POST", "/adapters/support/promote", {}, 400, "version", "invalid_request"),
        ("POST", "/adapters/support/promote", {"version": "two"}, 400, "version", "invalid_request"),
        ("POST", "/adapters/support/promote", {"version": 2, "force": 1}, 400, "force", "invalid_request"),
        ("POST", "/adapters/support/promote", {"version": 9}, 404, "version", "not_found"),
        ("POST", "/adapters/support/promote", [], 400, "body", "invalid_request"),
        ("POST", "/adapters/support/rollback", None, 409, None, "conflict"),
        ("PUT", "/adapters/support/aliases/canary", {"version": 1}, 400, "alias", "invalid_name"),
        ("PUT", "/adapters/support/aliases/12", {"version": 1}, 400, "alias", "invalid_name"),
        ("PUT", "/adapters/support/aliases/%00", {"version": 1}, 400, "alias", "invalid_name"),
        ("DELETE", "/adapters/support/versions/1", None, 409, None, "conflict"),
        ("POST", "/verify", {"adapter": "../x"}, 400, "adapter", "invalid_name"),
        ("POST", "/drain", {"draining": "maybe"}, 400, "draining", "invalid_request"),
        ("GET", "/audit?since=yesterday", None, 400, "since", "invalid_request"),
    ],
)
def test_every_refusal_is_openai_shaped_and_names_what_is_wrong(
    http: httpx.Client, method: str, path: str, body: Any, status: int, param: str | None, code: str
) -> None:
    answer = http.request(method, path, json=body) if body is not None else http.request(method, path)
    assert answer.status_code == status
    error = refusal(answer)
    assert (error["code"], error["type"]) == (code, "invalid_request_error")
    assert param is None or error["param"] == param


@pytest.mark.parametrize(
    ("content", "content_type"),
    [
        (b"{", "application/json"),
        (b"\xff\xfe{}", "application/json"),
        (b'{"version": 2}', "text/plain"),
        (b'{"version": 2}', "application/x-www-form-urlencoded"),
        (b"[" * 100_000, "application/json"),
        (b'{"version": 2}', "multipart/form-data"),
        (b"", "application/json"),
    ],
)
def test_a_body_that_is_no_json_changes_nothing(
    http: httpx.Client, content: bytes, content_type: str
) -> None:
    headers = {"content-type": content_type}
    answer = http.post("/adapters/support/promote", content=content, headers=headers)
    assert answer.status_code == 400
    assert refusal(answer)["code"] == ("body_too_complex" if b"[[" in content else "invalid_request")
    assert http.get("/adapters").json()["adapters"][0]["stable"] == 1


@pytest.mark.parametrize("version", ["true", '"2"', "2.0", "[2]", "null", "1e0"])
def test_a_number_is_taken_as_it_is_meant_and_nothing_else_for_one(http: httpx.Client, version: str) -> None:
    for verb, path in (("PUT", "/adapters/support/aliases/mine"), ("POST", "/adapters/support/promote")):
        answer = http.request(
            verb,
            path,
            content=b'{"version":%s}' % version.encode(),
            headers={"content-type": "application/json"},
        )
        assert (answer.status_code, refusal(answer)["param"]) == (400, "version")
    assert http.get("/adapters").json()["adapters"][0]["aliases"] == {"stable": 1}


def test_a_huge_json_body_is_refused_while_it_arrives(http: httpx.Client) -> None:
    answer = http.post("/adapters/support/promote", content=b" " * (MAX_JSON_BYTES + 1))
    assert answer.status_code == 413
    assert refusal(answer)["code"] == "limit_exceeded"


def test_a_foreign_web_page_cannot_make_a_browser_write(http: httpx.Client) -> None:
    for origin in ("https://evil.example", "null", "http://127.0.0.1:1"):
        answer = http.post("/adapters/support/rollback", headers={"origin": origin})
        assert answer.status_code == 403
        assert refusal(answer)["code"] == "foreign_origin"
    own = f"http://{http.base_url.netloc.decode()}"
    assert http.post("/drain", headers={"origin": own}).status_code == 200


class Failing:
    """A registry whose every method fails as no method should."""

    def __init__(self, registry: Registry, error: Exception) -> None:
        self.root = registry.root
        self._error = error

    def __getattr__(self, name: str) -> Any:
        def fail(*_: Any, **__: Any) -> None:
            raise self._error

        return fail


@pytest.mark.parametrize("error", [ValueError("secret /etc/path"), KeyError("secret"), MemoryError("secret")])
def test_what_fails_unexpectedly_is_a_500_without_insides(registry: Registry, error: Exception) -> None:
    failing: Any = Failing(registry, error)
    with served(Door(build_control(failing, FakeState(registry)), KeyRing(registry.root))) as url:
        answer = httpx.get(f"{url}/admin/v1/adapters/support")
        assert answer.status_code == 500
        assert "secret" not in answer.text
        assert refusal(answer)["type"] == "server_error"
        assert httpx.get(f"{url}/admin/v1/adapters").status_code == 200


def test_the_openapi_document_types_every_answer_and_every_refusal(registry: Registry) -> None:
    with admin_server(registry.root) as url:
        document = httpx.get(f"{url}/admin/openapi.json").json()
    operations = {
        (method, path): operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }
    assert len(operations) == 39
    names = [operation["operationId"] for operation in operations.values()]
    assert len(set(names)) == len(names)
    for (method, path), operation in operations.items():
        assert path.startswith("/admin/v1/")
        assert operation["description"] or operation["summary"]
        for status in ("400", "401", "403", "421", "500", "503"):
            schema = operation["responses"][status]["content"]["application/json"]["schema"]
            assert schema == {"$ref": "#/components/schemas/ErrorDocument"}, (method, path, status)
        if not path.endswith("/files/{file}"):
            done = operation["responses"].get("200") or operation["responses"]["201"]
            assert "$ref" in done["content"]["application/json"]["schema"], (method, path)
    upload = operations["post", "/admin/v1/adapters/{name}/versions"]["requestBody"]
    assert list(upload["content"]) == ["multipart/form-data"]
    assert "HTTPValidationError" not in json.dumps(document)


@pytest.mark.parametrize(
    ("method", "path", "own"),
    [
        ("get", "/status", "507"),
        ("get", "/adapters/{name}", "404 507"),
        ("get", "/drain", ""),
        ("post", "/adapters/{name}/rollback", "404 409 507"),
        ("post", "/adapters/{name}/promote", "404 408 409 413 415 507"),
        ("post", "/adapters/{name}/versions", "404 408 409 413 415 422 507"),
        ("delete", "/adapters/{name}/versions/{number}", "404 409 507"),
        ("post", "/gc", "408 413 415 507"),
        ("get", "/groups", "507"),
        ("post", "/groups", "408 409 413 415 507"),
        ("patch", "/groups/{group}", "404 408 409 413 415 507"),
        ("get", "/groups/{group}/history", "404 507"),
    ],
)
def test_an_operation_lists_the_refusals_that_it_can_answer_and_no_other(
    method: str, path: str, own: str
) -> None:
    listed = control_schema()["paths"][f"/admin/v1{path}"][method]["responses"]
    always = {"400", "401", "403", "421", "500", "503"}
    assert {status for status in listed if not status.startswith("2")} - always == set(own.split())


@pytest.mark.parametrize(
    ("method", "path", "body", "param"),
    [
        ("POST", "/adapters/support/promote", {"version": 9}, "version"),
        ("POST", "/adapters/nobody/promote", {"version": 1}, "name"),
        ("PUT", "/adapters/support/aliases/night", {"version": 9}, "version"),
        ("DELETE", "/adapters/support/versions/9", None, "version"),
        ("GET", "/adapters/support/versions/9", None, "version"),
        ("GET", "/adapters/nobody", None, "name"),
        ("POST", "/rollouts/support", {"version": 9}, "version"),
        ("GET", "/rollouts/support", None, "name"),
        ("POST", "/verify", {"adapter": "nobody"}, "adapter"),
        ("POST", "/verify", {"adapter": "support", "version": 9}, "version"),
    ],
)
def test_what_is_not_there_is_named_by_the_field_of_the_request(
    registry: Registry, method: str, path: str, body: dict[str, object] | None, param: str
) -> None:
    with admin_server(registry.root) as url:
        answer = httpx.request(method, f"{url}/admin/v1{path}", json=body)
    assert (answer.status_code, refusal(answer)["param"]) == (404, param)


def test_the_openapi_document_tells_keys_servers_tags_patterns_and_examples() -> None:
    document = control_schema()
    assert document["openapi"].startswith("3.1")
    schemes = document["components"]["securitySchemes"]
    assert (schemes["bearer"]["scheme"], schemes["key"]["name"]) == ("bearer", "x-api-key")
    assert document["security"] == [{"bearer": []}, {"key": []}, {}]
    assert document["servers"][0]["url"] == "/"
    assert {tag["name"] for tag in document["tags"] if tag["description"]} == {
        tag for path in document["paths"].values() for one in path.values() for tag in one["tags"]
    }
    patterns = {
        (one["name"], one["schema"].get("pattern"))
        for path in document["paths"].values()
        for operation in path.values()
        for one in operation.get("parameters", ())
        if one["name"] in {"name", "alias"}
    }
    assert len(patterns) == 2
    for name, pattern in patterns:
        check = check_adapter_name if name == "name" else check_alias_name
        for text in ("support", "a", "3a", "1.5", "0-x", "__main__", "Support", "3", "", "a b", "-a", "a@1"):
            assert (re.fullmatch(pattern, text) is not None) == _accepted(check, text), (name, text)
    requests = [name for name in document["components"]["schemas"] if name.endswith("Request")]
    assert len(requests) >= 6
    assert [name for name in requests if "examples" not in document["components"]["schemas"][name]] == []
    assert '"default": {' not in json.dumps(document)


def _accepted(check: Callable[[str], str], text: str) -> bool:
    try:
        return check(text) == text
    except InvalidName:
        return False


OPERATIONS = {
    "list_adapters", "show_adapter", "show_history", "list_versions", "upload_version", "show_version",
    "download_file", "delete_version", "set_alias", "remove_alias", "promote", "rollback", "show_status",
    "list_replicas", "show_drain", "drain", "show_audit", "verify", "collect_garbage", "list_rollouts",
    "show_rollout", "explain_rollout", "show_rollout_history", "start_rollout", "plan_rollout",
    "pause_rollout", "resume_rollout", "promote_rollout", "abort_rollout", "receive_alerts",
}  # fmt: skip


def test_the_names_of_operations_are_those_that_generated_clients_call() -> None:
    every = control_schema()["paths"].values()
    assert {operation["operationId"] for path in every for operation in path.values()} >= OPERATIONS


def test_listing_a_thousand_adapters_is_fast_and_keeps_the_loop_free(registry: Registry) -> None:
    state = FakeState(registry)
    one = state.watcher.view.adapters["support"]
    many = {f"adapter-{n:04}": replace(one, name=f"adapter-{n:04}") for n in range(1000)}

    class Crowded(FakeState):
        """A state whose view holds a thousand adapters."""

        def __init__(self) -> None:
            super().__init__(registry)
            self.watcher = _Still(View(1, MappingProxyType(many)))  # type: ignore[assignment]

    app = build_control(registry, Crowded())
    scope_state = {"who": "test"}

    async def ask() -> tuple[int, float]:
        async def stated(scope: Any, receive: Any, send: Any) -> None:
            await app({**scope, "state": scope_state}, receive, send)

        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app=stated), base_url="http://t"
        ) as client:
            await client.get("/admin/v1/adapters")
            started = time.process_time()
            answer = await client.get("/admin/v1/adapters")
            return len(answer.json()["adapters"]), time.process_time() - started

    count, seconds = asyncio.run(ask())
    assert count == 1000
    assert seconds < 0.5


class _Still:
    """A watcher that holds one view."""

    def __init__(self, view: Any) -> None:
        self.view = view

    def refresh(self) -> None:
        """Change nothing."""


def test_a_change_that_is_made_is_not_called_failed_because_the_view_lags(registry: Registry) -> None:
    class Lagging(FakeState):
        """A state whose watcher cannot read the disk now."""

        def __init__(self) -> None:
            super().__init__(registry)
            self.watcher = _Blind(self.watcher.view)  # type: ignore[assignment]

    with served(Door(build_control(registry, Lagging()), KeyRing(registry.root))) as url:
        answer = httpx.post(f"{url}/admin/v1/adapters/support/promote", json={"version": 2})
    assert (answer.status_code, answer.json()["version"]) == (200, 2)
    assert registry.aliases("support") == {"stable": 2}


class _Blind(_Still):
    """A watcher that cannot read the disk."""

    def refresh(self) -> None:
        """Fail as the real one does."""
        raise StorageFailed("root", "the file system refused (stale)", "check the mount")
