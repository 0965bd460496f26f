"""`/a/NAME/v1/…` on a real uvicorn: the same as `model: NAME`, for balancers that read no bodies."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from registry.entries.keys import KeyStore
from registry.entries.rights import Scope
from registry.store import Registry
from serve.protocol.paths import ENDPOINTS, find_endpoint
from serve.settings import RequestLimits
from tests.fakes.served import BASE, Served, make_root, publish, serve

UNDER_V1 = [path for path in ENDPOINTS if path.startswith(b"/v1/")]
PAGE = "https://chat.example"


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return make_root(tmp_path)


@pytest.fixture
def served(registry: Registry, tmp_path: Path) -> Iterator[Served]:
    """Serve `support` with the versions 1 (stable) and 2 (the alias `next`), and `other`."""
    for seed in (1, 2):
        publish(registry, tmp_path, "support", seed)
    publish(registry, tmp_path, "other", 3)
    registry.set_alias("support", "next", 2, who="tester")
    with serve(registry, tmp_path) as server:
        yield server


def ask(served: Served, name: str, path: str = "/v1/chat/completions", **body: Any) -> httpx.Response:
    content = {"messages": [{"role": "user", "content": "hello"}], **body}
    return served.client.post(f"/a/{name}{path}", json=content)


@pytest.mark.parametrize(
    ("name", "answering", "arm"),
    [
        ("support", "support@1", "stable"),
        ("support@2", "support@2", "direct"),
        ("support%402", "support@2", "direct"),
        ("support@next", "support@2", "direct"),
        (BASE, BASE, "base"),
    ],
)
def test_the_path_says_the_model(served: Served, name: str, answering: str, arm: str) -> None:
    for own in ({}, {"model": None}, {"model": name.replace("%40", "@")}):
        response = ask(served, name, **own)
        assert response.status_code == 200
        assert response.json()["model"] == answering
        assert response.headers["x-wardrobe-adapter"] == answering
        assert response.headers["x-wardrobe-arm"] == arm
        assert served.inner.seen[-1].path == "/v1/chat/completions"


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("support", "other"),
        ("support", "support@2"),
        ("support@2", "support"),
        ("support", BASE),
        ("support", ""),
        ("support", 7),
        ("support", ["support"]),
    ],
)
def test_another_model_in_the_body_is_a_400_that_names_both(served: Served, name: str, model: object) -> None:
    before = len(served.inner.seen)
    response = ask(served, name, model=model)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "model"
    assert name in response.json()["error"]["message"]
    assert len(served.inner.seen) == before


def test_an_unknown_name_is_the_404_that_it_is_in_a_body(served: Served) -> None:
    by_path, by_body = ask(served, "nobody"), served.chat("nobody")
    assert (by_path.status_code, by_path.json()) == (404, by_body.json())


@pytest.mark.parametrize("path", UNDER_V1)
def test_every_path_under_v1_has_its_twin(path: bytes) -> None:
    found, plain = find_endpoint(b"/a/support" + path), ENDPOINTS[path]
    assert found is not None
    assert found.model == "support"
    assert (found.kind, found.operation, found.methods) == (plain.kind, plain.operation, plain.methods)
    assert found.inner_path == (plain.inner_path or path.decode())


@pytest.mark.parametrize(
    "path",
    [
        "/a/support/livez", "/a/support/readyz", "/a/support/metrics", "/a/support/admin/v1/adapters",
        "/a/support", "/a/support/v1", "/a/support/v1/", "/a//v1/models", "/a/support//v1/models",
        "/a/Support/v1/models", "/a/../v1/models", "/a/support/v1/load_lora_adapter", "/a/a/b/v1/models",
        "/a/support@/v1/models", "/a/support@1@2/v1/models", "/a/support/a/support/v1/models",
        "/a/" + "x" * 64 + "/v1/models", "/a/supp%6frt/v1/models", "/A/support/v1/models",
        "/x/a/support/v1/models", "/a/.hidden/v1/models", "/a/support/v1/v1/models",
    ],
)  # fmt: skip
def test_nothing_else_is_below_the_prefix(path: str) -> None:
    assert find_endpoint(path.encode()) is None


def test_the_list_of_models_holds_that_one_alone(served: Served) -> None:
    for name in ("support", "support@2"):
        listed = served.client.get(f"/a/{name}/v1/models").json()
        assert [card["id"] for card in listed["data"]] == [name]
        assert served.client.get(f"/a/{name}/v1/models/{name}").json()["id"] == name
    assert served.client.get("/a/support/v1/models/other").status_code == 404
    assert served.client.get("/a/nobody/v1/models").status_code == 404
    assert len(served.client.get("/v1/models").json()["data"]) == 3


def test_a_stored_response_is_found_under_the_prefix_too(served: Served) -> None:
    made = ask(served, "support", "/v1/responses", messages=None, input="hello")
    assert made.status_code == 200
    path = f"/v1/responses/{made.json()['id']}"
    both = [served.client.get(prefix + path) for prefix in ("", "/a/support")]
    assert both[0].status_code == both[1].status_code
    assert both[0].json() == both[1].json()


def test_anthropics_errors_have_their_shape_and_their_header_there(served: Served) -> None:
    refused = ask(served, "support", "/v1/messages", model="other")
    assert refused.json()["type"] == "error"
    assert refused.headers["request-id"] == refused.headers["x-request-id"]
    wrong = served.client.get("/a/support/v1/messages")
    assert wrong.status_code == 405
    assert wrong.headers["request-id"] == wrong.headers["x-request-id"]


def test_keys_pages_and_limits_are_those_of_the_plain_path(registry: Registry, tmp_path: Path) -> None:
    publish(registry, tmp_path, "support", 1)
    _, token = KeyStore(registry.root).create([Scope.INFER], who="tester")
    limits = RequestLimits(max_body_bytes=2_000)
    with serve(registry, tmp_path, limits=limits, cors_origins=(PAGE,)) as served:
        assert ask(served, "support").status_code == 401
        assert served.client.get("/a/support/v1/models").status_code == 401
        served.client.headers["authorization"] = f"Bearer {token}"
        assert ask(served, "support").status_code == 200
        assert ask(served, "support", pad="x" * 3_000).status_code == 413
        asked = {"origin": PAGE, "access-control-request-method": "POST"}
        preflight = served.client.options("/a/support/v1/chat/completions", headers=asked)
        assert (preflight.status_code, preflight.headers["access-control-allow-origin"]) == (204, PAGE)


def test_in_a_rollout_the_path_is_the_bare_name(served: Served) -> None:
    served.open_rollout()
    messages = [{"role": "user", "content": "the same conversation"}]
    by_path = ask(served, "support", messages=messages)
    by_body = served.chat("support", messages=messages)
    assert by_path.headers["x-wardrobe-arm"] == by_body.headers["x-wardrobe-arm"]
