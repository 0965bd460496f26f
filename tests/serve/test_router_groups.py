"""Groups at the door of a running server: what key and group grant together, followed while it runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from registry.entries.groups import GroupStore, groups_folder
from registry.entries.keys import KeyStore
from registry.entries.rights import ALL_SCOPES, DEFAULT_GROUP, Group, Scope
from registry.store import Registry
from serve.preflight import ungrouped_line
from tests.fakes.served import Served, serve, wait_until

INFER = frozenset({Scope.INFER})


def status(served: Served, path: str, token: str | None) -> int:
    headers = {} if token is None else {"authorization": f"Bearer {token}"}
    if path.startswith("/v1/chat"):
        body = {"model": "support", "messages": [{"role": "user", "content": "Hello"}]}
        return served.client.post(path, json=body, headers=headers).status_code
    return served.client.get(path, headers=headers).status_code


def test_a_running_server_follows_what_a_group_may_do(registry: Registry, tmp_path: Path) -> None:
    groups, keys = GroupStore(registry.root), KeyStore(registry.root)
    groups.create(Group("legal", scopes=INFER), who="tester")
    info, bound = keys.create([Scope.ADMIN], who="tester", group="legal")
    _, free = keys.create([Scope.ADMIN], who="tester")
    with serve(registry, tmp_path) as served:
        for path, expected in (("/v1/chat/completions", 200), ("/admin/v1/status", 403), ("/v1/files", 403)):
            assert status(served, path, bound) == expected, path
            assert status(served, path, free) == 200, path
        refused = served.client.get("/admin/v1/status", headers={"authorization": f"Bearer {bound}"}).json()
        assert f"key {info.id}: is of the group `legal`, which lacks the scope" in str(refused)
        groups.change("legal", lambda group: replace(group, scopes=frozenset({Scope.TUNE})), who="tester")
        wait_until(lambda: status(served, "/v1/chat/completions", bound) == 403, "it is narrowed")
        assert status(served, "/v1/files", bound) == 200
        groups.change("legal", lambda group: replace(group, scopes=ALL_SCOPES), who="tester")
        wait_until(lambda: status(served, "/admin/v1/status", bound) == 200, "it is widened")


def test_a_group_that_is_damaged_lets_nobody_in_and_the_server_says_so(
    registry: Registry, tmp_path: Path
) -> None:
    GroupStore(registry.root).create(Group("legal"), who="tester")
    keys = KeyStore(registry.root)
    _, bound = keys.create([Scope.INFER], who="tester", group="legal")
    _, free = keys.create([Scope.INFER], who="tester")
    with serve(registry, tmp_path) as served:
        assert status(served, "/v1/chat/completions", bound) == 200
        path = groups_folder(registry.root) / "legal" / "1.json"
        torn = path.with_name("2.json")
        torn.write_bytes(b"{")
        wait_until(lambda: status(served, "/v1/chat/completions", bound) == 401, "the door closes")
        assert status(served, "/v1/chat/completions", free) == 200
        wait_until(lambda: "group legal: " in str(registry.replicas()), "its heartbeat says so")
        torn.unlink()
        wait_until(lambda: status(served, "/v1/chat/completions", bound) == 200, "the door opens")


def test_without_keys_everybody_is_of_the_group_default(registry: Registry, tmp_path: Path) -> None:
    with serve(registry, tmp_path) as served:
        assert status(served, "/admin/v1/status", None) == 200
        groups = GroupStore(registry.root)
        groups.change(DEFAULT_GROUP, lambda group: replace(group, scopes=INFER), who="tester")
        wait_until(lambda: status(served, "/admin/v1/status", None) == 403, "it is narrowed")
        assert status(served, "/v1/chat/completions", None) == 200


def test_who_may_look_at_what_others_made_may_not_change_it(registry: Registry, tmp_path: Path) -> None:
    keys = KeyStore(registry.root)
    _, maker = keys.create([Scope.TUNE], who="tester")
    _, reader = keys.create([Scope.TUNE, Scope.READ], who="tester")
    _, admin = keys.create([Scope.ADMIN], who="tester")
    with serve(registry, tmp_path) as served:
        made = served.client.post(
            "/v1/files",
            files={"file": ("notes.txt", b"a line of text\n")},
            data={"purpose": "user_data"},
            headers={"authorization": f"Bearer {maker}"},
        ).json()
        path = f"/v1/files/{made['id']}"
        assert status(served, path, reader) == 200
        for token, code in ((reader, 404), (admin, 200)):
            deleted = served.client.delete(path, headers={"authorization": f"Bearer {token}"})
            assert deleted.status_code == code


def test_a_start_says_how_many_keys_no_group_bounds(registry: Registry) -> None:
    assert ungrouped_line(registry) is None
    keys = KeyStore(registry.root)
    keys.create([Scope.INFER], who="tester")
    line = ungrouped_line(registry)
    assert line is not None
    assert line.startswith("1 key is of the group default, which may do everything")
    GroupStore(registry.root).create(Group("legal"), who="tester")
    keys.create([Scope.INFER], who="tester", group="legal")
    assert ungrouped_line(registry) == line
    registry.catalogue.groups.change(DEFAULT_GROUP, lambda group: replace(group, base=False), who="tester")
    assert "which has bounds" in str(ungrouped_line(registry))
