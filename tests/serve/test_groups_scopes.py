"""The column of scopes: each path and method lets in who has one of its scopes, and nobody else."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from starlette.routing import Route

from registry.entries.groups import GroupStore
from registry.entries.keys import KeyStore
from registry.entries.rights import Group, Scope, effective
from registry.store import Registry
from serve.control.app import application as admin_application
from serve.protocol.paths import ENDPOINTS, PATTERNS, Endpoint, PathKind
from serve.router.endpoints.apis import _application as platform_application
from serve.router.endpoints.apis import own_methods
from tests.fakes.served import Served, make_root, publish, serve

ROUTES: dict[str, Endpoint] = {**{path.decode(): one for path, one in ENDPOINTS.items()}, **PATTERNS}
EXAMPLES = {
    "/v1/files…": ("/v1/files", "/v1/files/file-1"), "/v1/uploads…": ("/v1/uploads/upload_1/cancel",),
    "/v1/batches…": ("/v1/batches", "/v1/batches/batch_1/cancel"),
    "/v1/fine_tuning…": (
        "/v1/fine_tuning/jobs", "/v1/fine_tuning/checkpoints/ft:a/permissions/cp_1",
    ),
    "/admin…": (
        "/admin/v1/adapters", "/admin/v1/adapters/a/versions/1", "/admin/v1/groups", "/admin/v1/drain",
        "/admin/openapi.json", "/admin/v1/adapters/a/aliases/b", "/admin/v1/groups/a",
    ),
}  # fmt: skip
"""Paths behind the patterns, each method of which is asked."""
CASES = [
    (path, grant.method, grant.scopes)
    for path, one in ROUTES.items()
    if one.kind is not PathKind.CONSOLE  # it has a login of its own: test_console_door
    for grant in one.grants
]


class Doorkeeper:
    """A server, and for each scope a key that has it alone, by its own list or by its group's."""

    def __init__(self, served: Served) -> None:
        self.served = served
        self.tokens: dict[tuple[Scope, str], tuple[str, frozenset[Scope]]] = {}
        root = served.registry.root
        for scope in Scope:
            group = GroupStore(root).create(Group(scope.value, scopes=frozenset({scope})), who="tester")
            own = KeyStore(root).create({scope}, who="tester")[1]
            shared = KeyStore(root).create({Scope.ADMIN}, who="tester", group=group.name)[1]
            self.tokens[scope, "key"] = own, effective({scope}, Group("default"))
            self.tokens[scope, "group"] = shared, effective({Scope.ADMIN}, group)


@pytest.fixture(scope="module")
def doorkeeper(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doorkeeper]:
    folder = tmp_path_factory.mktemp("scopes")
    registry: Registry = make_root(folder)
    publish(registry, folder, "support", 1)
    with serve(registry, folder) as served:
        found = Doorkeeper(served)
        served.runtime.keys.refresh()
        yield found


def paths_of(route: str, method: str) -> list[str]:
    """Return the paths to ask for a row, those of a pattern that have the method."""
    filled = route.replace("{model}", "support@1").replace("{id}", "resp_0123456789abcdef.a@1")
    if route not in EXAMPLES:
        return [filled]
    kind = PATTERNS[route].kind
    found = [path for path in EXAMPLES[route] if method in own_methods(kind, path)]
    api = admin_application() if kind is PathKind.ADMIN else platform_application()
    routes = [one for one in api.routes if isinstance(one, Route)]
    there = any(
        method in (one.methods or ()) for one in routes if one.path.startswith(route.removesuffix("…"))
    )
    assert bool(found) == there, f"no example of {method} {route}"
    return found


@pytest.mark.parametrize(("route", "method", "scopes"), CASES, ids=[f"{one[1]} {one[0]}" for one in CASES])
def test_a_row_lets_in_who_has_one_of_its_scopes(
    doorkeeper: Doorkeeper, route: str, method: str, scopes: frozenset[Scope] | None
) -> None:
    ask = doorkeeper.served.client.request
    for path in paths_of(route, method):
        assert (ask(method, path).status_code == 401) == (scopes is not None)
        for token, has in doorkeeper.tokens.values():
            answer = ask(method, path, headers={"authorization": f"Bearer {token}"})
            allowed = not scopes or not scopes.isdisjoint(has)
            assert (answer.status_code != 403) == allowed, f"{method} {path} with {has}: {answer.text}"
            assert answer.status_code != 401


def test_every_route_has_a_row_and_every_pattern_an_example() -> None:
    patterns = {path for path, one in PATTERNS.items() if path.endswith("…")}
    assert set(EXAMPLES) == {path for path in patterns if PATTERNS[path].kind is not PathKind.CONSOLE}
    assert len(CASES) > 40
    assert all(len(one.methods) == len(set(one.methods)) for one in ROUTES.values())


def test_who_reads_looks_at_everything_and_changes_nothing(doorkeeper: Doorkeeper) -> None:
    """Nothing but looks is granted to `read`, whatever comes into the table."""
    granted = {method for _, method, scopes in CASES if scopes and Scope.READ in scopes}
    assert granted == {"GET", "HEAD"}
    token, _ = doorkeeper.tokens[Scope.READ, "key"]
    for path in (
        "/admin/v1/adapters",
        "/v1/files",
        "/v1/batches",
        "/v1/fine_tuning/jobs",
        "/v1/models",
        "/metrics",
    ):
        answer = doorkeeper.served.client.get(path, headers={"authorization": f"Bearer {token}"})
        assert answer.status_code == 200, path
