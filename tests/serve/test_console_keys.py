"""The page of keys and groups: many keys cut to a page, no secret, and a revocation that acts at once."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from registry.entries.groups import GroupStore
from registry.entries.keys import KeyEntry, KeyInfo, KeyStore
from registry.entries.rights import Group, GroupLimits, Scope
from registry.store import Registry
from tests.fakes.served import Served, serve

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"


@pytest.fixture
def keys(registry: Registry) -> KeyStore:
    return KeyStore(registry.root)


@pytest.fixture
def server(registry: Registry, keys: KeyStore, tmp_path: Path) -> Iterator[Served]:
    """A server whose client has a session that may act."""
    _, text = keys.create([Scope.ADMIN], who="tester", note="mine")
    with serve(registry, tmp_path) as served:
        assert served.client.post("/console/login", data={"key": text}).status_code == 303
        yield served


def make(served: Served, keys: KeyStore, note: str, scope: Scope = Scope.INFER) -> tuple[KeyInfo, str]:
    made = keys.create([scope], who="tester", note=note)
    served.runtime.keys.refresh()
    return made


def token(page: str) -> str:
    found = re.search(r'name="change" value="([0-9a-f]{64})"', page)
    assert found is not None
    return found[1]


def test_a_key_is_revoked_and_refused_at_once(server: Served, keys: KeyStore) -> None:
    info, text = make(server, keys, "the shop")
    assert server.runtime.keys.check(text) is not None
    path = f"/console/keys/{info.id}/do/revoke"
    form = server.client.get(path).text
    assert f"wardrobe keys revoke {info.id}" in form
    assert server.client.post(path, data={}).status_code == 403
    assert server.runtime.keys.check(text) is not None
    done = server.client.post(path, data={"change": token(form)})
    assert (done.status_code, done.headers["location"]) == (303, "/console/keys?done=revoke")
    assert server.runtime.keys.check(text) is None
    page = server.client.get(done.headers["location"]).text
    assert "The key is revoked." in page
    assert path not in page
    assert server.client.get("/console/keys/ffffffffffff/do/revoke").status_code == 404
    gone = server.client.post("/console/keys/ffffffffffff/do/revoke", data={"change": token(form)})
    assert (gone.status_code, "does not exist" in gone.text) == (404, True)


def test_who_revokes_the_own_key_is_out(server: Served, keys: KeyStore) -> None:
    (own,) = keys.list()
    path = f"/console/keys/{own.id}/do/revoke"
    server.client.post(path, data={"change": token(server.client.get(path).text)})
    assert server.client.get("/console/keys").headers["location"] == "/console/login?next=%2Fconsole%2Fkeys"


def test_who_only_looks_sees_keys_without_a_button_and_revokes_none(server: Served, keys: KeyStore) -> None:
    info, text = make(server, keys, "eyes", Scope.READ)
    server.client.post("/console/login", data={"key": text})
    page = server.client.get("/console/keys").text
    assert info.id in page
    assert "/do/" not in page
    path = f"/console/keys/{info.id}/do/revoke"
    assert server.client.get(path).status_code == 403
    assert server.client.post(path, data={"change": token(page)}).status_code == 403
    assert server.runtime.keys.check(text) is not None


def _entry(like: KeyEntry, key_id: str, made: float) -> KeyEntry:
    return replace(like, info=replace(like.info, id=key_id, created=made, note=f"note {int(made)}x"))


def test_many_keys_are_searched_and_cut_without_a_look_at_the_disk(server: Served) -> None:
    ring = server.runtime.keys
    (first,) = ring._entries.values()
    many = {f"{n:012x}": _entry(first, f"{n:012x}", float(n)) for n in range(1_000)}
    ring._entries = {**ring._entries, **many}  # none of them lies in the root
    page = server.client.get("/console/keys").text
    shown = re.findall(r"<tr><td><code>([0-9a-f]{12})</code>", page)
    assert len(shown) == 50
    assert "1001 of 1001 keys" in page
    assert shown[1] == f"{999:012x}"
    assert re.findall(
        r"<tr><td><code>([0-9a-f]{12})", server.client.get("/console/keys?q=note%207x").text
    ) == [f"{7:012x}"]


def test_groups_are_told_and_what_was_written_stays_text(server: Served, keys: KeyStore) -> None:
    limited = Group("legal", ("legal-*",), base=False, limits=GroupLimits(tokens_per_day=1_000))
    GroupStore(server.registry.root).create(limited, who="tester")
    keys.create([Scope.INFER], who=HOSTILE, note=HOSTILE, group="legal")
    server.runtime.keys.refresh()
    page = server.client.get("/console/keys", params={"q": "legal"}).text
    assert "tokens per day 1000" in page
    assert "<td>legal-*</td><td>no</td>" in page
    assert "&lt;script&gt;alert(1)" in page
    assert "<script>alert" not in page
    assert "<img" not in page
    assert not any(one.token_sha256.hex() in page for one in server.runtime.keys._entries.values())


def test_the_admin_api_lists_and_revokes_as_the_page_does(server: Served, keys: KeyStore) -> None:
    info, text = make(server, keys, "the shop")
    _, admin = make(server, keys, "api", Scope.ADMIN)
    headers = {"authorization": f"Bearer {admin}"}
    found = server.client.get("/admin/v1/keys", headers=headers).json()["keys"]
    assert [one["note"] for one in found] == ["mine", "the shop", "api"]
    assert text.split("_")[2] not in str(found)
    path = f"/admin/v1/keys/{info.id}/revoke"
    assert server.client.post(path, headers={"authorization": f"Bearer {text}"}).status_code == 403
    assert server.client.post(path, headers=headers).json()["state"] == "revoked"
    assert server.client.post("/admin/v1/keys/none/revoke", headers=headers).status_code == 404
