"""All routes by all doors: what a key's group may not see is told exactly as what never was.

The rows come from the allow-list and from the routes behind it: one that has no row here fails.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from fastapi.routing import APIRoute

from serve.console.app import _PAGES as PAGES
from serve.control.app import application as admin_application
from serve.protocol.paths import ENDPOINTS, PATTERNS, Endpoint, PathKind
from serve.router.endpoints.apis import _application as platform_application
from tests.fakes.served import BASE, make_root, publish
from tests.fakes.two_groups import (
    CHECKPOINT,
    HIDDEN,
    NAMES,
    ROWS,
    SEEN,
    SILENT,
    TUNED,
    TwoGroups,
    twin,
    two_groups,
)

ROUTES: dict[str, Endpoint] = {**{path.decode(): one for path, one in ENDPOINTS.items()}, **PATTERNS}
TURNS = [{"role": "user", "content": "hello"}]
ASKED = {"messages": TURNS, "prompt": "hello", "input": "hello", "max_tokens": 8}
"""A body for every path that has a `model`."""

Row = Callable[[TwoGroups, str], None]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TwoGroups]:
    folder = tmp_path_factory.mktemp("doors")
    registry = make_root(folder)
    publish(registry, folder, SEEN, 1)
    with two_groups(registry, folder) as found:
        make_theirs(found)
        yield found


def make_theirs(world: TwoGroups) -> None:
    """Have theirs make what ours may not see, and `moved` what it will not see any more."""
    made = world.made
    for name, model in (("stable", HIDDEN), ("direct", f"{HIDDEN}@2"), ("base", BASE)):
        answer = world.ask("POST", "/v1/chat/completions", key="theirs", json={**ASKED, "model": model})
        made[f"answer {name}"] = answer.json()["id"]
    for key in ("theirs", "moved"):
        answer = world.ask("POST", "/v1/responses", key=key, json={"model": f"{HIDDEN}@1", "input": "hello"})
        made[f"response {key}"] = answer.json()["id"]
        made[f"item {key}"] = answer.json()["output"][0]["id"]
    line = {"custom_id": "1", "method": "POST", "url": "/v1/chat/completions"}
    lines = json.dumps({**line, "body": {"model": HIDDEN, "messages": TURNS}}).encode()
    for key in ("theirs", "ours"):
        rows = world.ask("POST", "/v1/files", key=key, files={"file": ("a", ROWS)}, data=_PURPOSE)
        made[f"rows {key}"] = rows.json()["id"]
    asked = world.ask(
        "POST", "/v1/files", key="theirs", files={"file": ("a", lines)}, data={"purpose": "batch"}
    )
    made["lines"] = asked.json()["id"]
    batch = world.ask("POST", "/v1/batches", key="theirs", json=_batch(made["lines"]))
    made["batch"] = batch.json()["id"]
    upload = world.ask("POST", "/v1/uploads", key="theirs", json=_UPLOAD)
    made["upload"] = upload.json()["id"]
    job = world.ask(
        "POST",
        "/v1/fine_tuning/jobs",
        key="theirs",
        json={"model": f"{HIDDEN}@1", "training_file": made["rows theirs"], "suffix": HIDDEN},
    )
    made["job"] = job.json()["id"]
    world.wait_for_batch(made["batch"], key="theirs")
    world.change("moved", adapters=(SEEN,), base=False)
    world.served.settled()


_PURPOSE = {"purpose": "fine-tune"}
_UPLOAD = {"filename": "a.jsonl", "purpose": "fine-tune", "bytes": 10, "mime_type": "text/jsonl"}


def _batch(file: str) -> dict[str, str]:
    return {"input_file_id": file, "endpoint": "/v1/chat/completions", "completion_window": "24h"}


def test_what_is_hidden_is_there_for_its_own_group(world: TwoGroups) -> None:
    """Or nothing below would show anything."""
    for name in NAMES:
        answer = world.ask("POST", "/v1/chat/completions", key="theirs", json={**ASKED, "model": name})
        wanted = {SILENT: 409, f"{HIDDEN}@3": 409, f"{HIDDEN}@9": 404, f"{HIDDEN}@nope": 404}.get(name, 200)
        assert answer.status_code == wanted or (name == SILENT and answer.status_code == 503), name
    world.served.settled()


def leaks(text: str, *more: str) -> list[str]:
    return [word for word in (HIDDEN, BASE, *more) if word in text]


def inference(world: TwoGroups, path: str) -> None:
    assert world.ask("POST", path, json={**ASKED, "model": SEEN}).status_code == 200
    assert world.ask("POST", path, key="theirs", json={**ASKED, "model": f"{HIDDEN}@1"}).status_code == 200
    for name in NAMES:
        for key in ("ours", "moved"):
            told = world.same("POST", path, name, key=key, json={**ASKED, "model": name})
            assert (told.status, HIDDEN in told.text) == (404, False)
        assert world.same("POST", f"/a/{name}{path}", name, json=ASKED).status == 404
    unnamed = world.ask("POST", path, json=ASKED)
    assert (unnamed.status_code, leaks(unnamed.text)) == (404, [])
    if path == "/v1/responses":
        goes_on(world, path)


def goes_on(world: TwoGroups, path: str) -> None:
    made = world.made
    for key, response in (("moved", made["response moved"]), ("ours", made["response theirs"])):
        body: Any = {"model": SEEN, "input": "go on", "previous_response_id": response}
        assert world.same("POST", path, response, key=key, json=body).status == 400
    for key in ("moved", "theirs"):
        item = made[f"item {key}"]
        body = {"model": SEEN, "input": [{"type": "item_reference", "id": item}, *TURNS]}
        assert world.same("POST", path, item, key="moved", json=body).status == 400


def feedback(world: TwoGroups, path: str) -> None:
    ids = [value for name, value in world.made.items() if name.startswith("answer")]
    assert len(ids) == 3
    for name in (*NAMES, *ids):
        field = "response_id" if name in ids else "adapter"
        asked = HIDDEN if HIDDEN in name else "base@0" if name in ids else name
        told = world.same("POST", path, asked, json={field: name, "score": 1})
        assert told.status == 404
    assert world.ask("POST", path, json={"adapter": SEEN, "score": 1}).status_code == 202
    assert world.ask("POST", path, key="theirs", json={"response_id": ids[0], "score": 1}).status_code == 202


def models(world: TwoGroups, path: str) -> None:
    for prefix in ("", f"/a/{SEEN}"):
        listed = world.ask("GET", f"{prefix}{path}")
        assert [one["id"] for one in listed.json()["data"]] == [SEEN]
        assert leaks(listed.text) == []
    for key in ("whole", "reader"):
        listed = world.ask("GET", path, key=key)
        assert {HIDDEN, TUNED, CHECKPOINT, BASE, SEEN} <= {one["id"] for one in listed.json()["data"]}
    assert world.ask("HEAD", path).status_code == 200
    for name in NAMES:
        assert world.same("GET", f"/a/{name}{path}", name).status == 404


def one_model(world: TwoGroups, path: str) -> None:
    for name in NAMES:
        there = path.replace("{model}", name)
        for method in ("GET", "HEAD"):
            assert world.same(method, there, name).status == 404
        for key in ("ours", "moved"):  # `moved` has made the tuned models
            assert world.same("DELETE", there, name, key=key).status == 404
    assert world.ask("GET", path.replace("{model}", TUNED), key="theirs").status_code == 200
    assert world.ask("GET", path.replace("{model}", f"{SEEN}@1")).json()["parent"] is None


def stored(world: TwoGroups, path: str) -> None:
    for key, response in (
        ("moved", world.made["response moved"]),
        ("ours", world.made["response theirs"]),
        ("ours", world.made["response moved"]),
    ):
        for method in PATTERNS[path].methods:
            assert world.same(method, path.replace("{id}", response), response, key=key).status == 404
        streamed = f"{path}?stream=true".replace("{id}", response)
        assert world.same(PATTERNS[path].methods[0], streamed, response, key=key).status == 404


def silent(world: TwoGroups, path: str) -> None:
    for key in ("ours", "theirs", "whole"):
        told = world.ask("GET", path, key=key)
        assert leaks(told.text, SEEN) == []
        assert world.ask("HEAD", path, key=key).status_code == 200


def ready(world: TwoGroups, path: str) -> None:
    silent(world, path)
    told = world.ask("GET", path).json()
    assert any(SILENT in problem for problem in world.served.runtime.problems())
    assert told == {"status": "degraded", "problems": ["1, told by `wardrobe status`"]}


def metrics(world: TwoGroups, path: str) -> None:
    for key in ("ours", "moved"):
        told = world.ask("GET", path, key=key)
        assert told.status_code == 200
        assert leaks(told.text, "theirs") == []
        names = {line.split("{")[0] for line in told.text.splitlines() if not line.startswith("#")}
        assert all(name.startswith("wardrobe_group_") for name in names)
    for key in ("whole", "reader"):
        assert f'adapter="{HIDDEN}"' in world.ask("GET", path, key=key).text


_ADMIN_PARTS = {
    "name": HIDDEN, "number": "1", "file": "a", "alias": "next", "group": "theirs", "key_id": "0123456789ab",
}  # fmt: skip


def console(world: TwoGroups, path: str) -> None:
    """It has a login of its own, which the key of a customer does not pass; without one nothing is told."""
    for key in ("ours", "moved"):
        told = world.ask("POST", "/console/login", key=key, data={"key": world.keys[key]})
        assert (told.status_code, "set-cookie" in told.headers) == (403, False)
    for below, _ in PAGES:
        there = below.replace("{name}", HIDDEN).replace("{number:int}", "1").replace("{word}", "promote")
        told = world.ask("GET", f"/console{there}")
        assert (told.status_code // 100, told.text) == (3, ""), there


def admin(world: TwoGroups, path: str) -> None:
    routes = [route for route in admin_application().routes if isinstance(route, APIRoute)]
    assert len(routes) > 30
    for route in routes:
        there = route.path
        for part, value in _ADMIN_PARTS.items():
            there = there.replace(f"{{{part}}}", value)
        assert "{" not in there, f"{route.path}: a door that this test does not know"
        for method in route.methods:
            assert world.same(method, there, HIDDEN).status == 403


def platform(world: TwoGroups, path: str) -> None:
    """Every route below `path` with what is theirs, in its path and in its body."""
    prefix, found = path.removesuffix("…"), 0
    for route in platform_application().routes:
        if not isinstance(route, APIRoute) or not route.path.startswith(prefix):
            continue
        for method in sorted(route.methods):
            found += 1
            _ask_platform(world, method, route.path)
    assert found >= 2


def _ask_platform(world: TwoGroups, method: str, path: str) -> None:
    made = world.made
    doors = {
        "file_id": made["rows theirs"], "upload_id": made["upload"], "batch_id": made["batch"],
        "job_id": made["job"], "name": CHECKPOINT,
    }  # fmt: skip
    named = [part for part in doors if f"{{{part}}}" in path.replace(":path", "")]
    bodies = _bodies(world).get(f"{method} {path}", [])
    if named:
        there = (
            path.replace(":path", "")
            .replace("{permission_id}", "cp_1")
            .replace(f"{{{named[0]}}}", doors[named[0]])
        )
        assert "{" not in there, f"{path}: a door that this test does not know"
        more = bodies[0][1] if bodies else {}
        assert world.same(method, there, doors[named[0]], **more).status == 404
        return
    if path == _GRADER:
        _grade(world)
        return
    if method == "GET":
        told = world.ask(method, path).text
        assert not any(value in told for value in made.values() if value != made["rows ours"])
        return
    assert f"{method} {path}" in _NAMES_NOTHING or bodies, f"{method} {path} has no row"
    for asked, more in bodies:
        assert world.same(method, path, asked, **more).status in {400, 404}


_NAMES_NOTHING = {"POST /v1/files", "POST /v1/uploads", "POST /v1/fine_tuning/alpha/graders/validate"}
"""What makes something of what is sent alone."""
_GRADER = "/v1/fine_tuning/alpha/graders/run"


def _bodies(world: TwoGroups) -> dict[str, list[tuple[str, dict[str, Any]]]]:
    """Return what is asked for in bodies, by route, and how."""
    made = world.made
    job = {"model": SEEN, "training_file": made["rows ours"]}
    theirs = made["rows theirs"]
    jobs: list[tuple[str, dict[str, Any]]] = [
        *((name, {"json": {**job, "model": name}}) for name in NAMES),
        *((name, {"json": {**job, "x_wardrobe": {"from": name}}}) for name in NAMES),
        (HIDDEN, {"json": {**job, "x_wardrobe": {"name": HIDDEN}}}),
        (HIDDEN, {"json": {**job, "x_wardrobe": {"start": f"{HIDDEN}@1"}}}),
        (HIDDEN, {"json": {**job, "suffix": HIDDEN}}),
        (theirs, {"json": {**job, "training_file": theirs}}),
        (theirs, {"json": {**job, "validation_file": theirs}}),
    ]
    return {
        "POST /v1/fine_tuning/jobs": jobs,
        "POST /v1/batches": [
            (made["lines"], {"json": _batch(made["lines"])}),
            (theirs, {"json": _batch(theirs)}),
        ],
        "POST /v1/uploads/{upload_id}/parts": [("", {"files": {"data": ("a", b"a")}})],
        "POST /v1/uploads/{upload_id}/complete": [("", {"json": {"part_ids": ["part_1"]}})],
        "POST /v1/fine_tuning/checkpoints/{name:path}/permissions": [("", {"json": {"project_ids": ["a"]}})],
    }


def _grade(world: TwoGroups) -> None:
    """A grader asks in its caller's name; what it cost in seconds differs."""
    told = []
    for model in (HIDDEN, twin(HIDDEN)):
        grader = {
            "type": "score_model",
            "name": "g",
            "model": model,
            "input": [{"role": "user", "content": "?"}],
        }
        answer = world.ask("POST", _GRADER, json={"grader": grader, "model_sample": "a"}).json()
        assert answer["metadata"]["errors"]["model_grader_server_error"], answer
        answer["metadata"]["execution_time"] = 0
        told.append(json.dumps(answer).replace(model, "<asked>"))
    assert told[0] == told[1]


GROUPS_OF_ROWS: dict[PathKind, Row] = {
    PathKind.INFERENCE: inference, PathKind.FEEDBACK: feedback, PathKind.STORED: stored,
    PathKind.LIVE: silent, PathKind.READY: ready, PathKind.METRICS: metrics, PathKind.ADMIN: admin,
    PathKind.PLATFORM: platform, PathKind.CONSOLE: console,
}  # fmt: skip
ONE_ROW: dict[str, Row] = {"/v1/models": models, "/v1/models/{model}": one_model}


@pytest.mark.parametrize("path", ROUTES)
def test_what_is_hidden_is_told_as_what_never_was(world: TwoGroups, path: str) -> None:
    row = ONE_ROW.get(path) or GROUPS_OF_ROWS[ROUTES[path].kind]
    row(world, path)
