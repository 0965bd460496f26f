"""API keys: made once, kept as hashes, refused when wrong, expired or revoked."""

from __future__ import annotations

import json
import os
import stat
import time
from pathlib import Path

import pytest

from registry.entries.keyring import KeyRing
from registry.entries.keys import KeyInfo, KeyStore, keys_folder
from registry.entries.rights import Scope
from registry.errors import NotFound, StorageFailed, UsageError
from tests.fakes.clock import Clock


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> KeyStore:
    return KeyStore(tmp_path, clock=clock)


def make(store: KeyStore, *scopes: Scope, lifetime_seconds: float | None = None) -> tuple[KeyInfo, str]:
    return store.create(scopes or (Scope.INFER,), who="test", lifetime_seconds=lifetime_seconds)


def test_a_token_has_its_prefix_its_id_and_32_bytes_of_secret(store: KeyStore) -> None:
    info, token = make(store)
    prefix, key_id, secret = token.split("_", 2)
    assert (prefix, key_id) == ("wardrobe", info.id)
    assert len(secret) == 43  # 32 bytes in base64url without padding


def test_only_the_hash_is_on_disk_and_only_the_owner_may_read_it(store: KeyStore, tmp_path: Path) -> None:
    info, token = make(store)
    path = keys_folder(tmp_path) / f"{info.id}.json"
    secret = token.split("_", 2)[2]
    for file in tmp_path.rglob("*"):
        assert file.is_dir() or secret.encode() not in file.read_bytes()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_the_ring_knows_a_key_and_its_scopes(store: KeyStore, tmp_path: Path) -> None:
    infer, infer_token = make(store)
    _, admin_token = make(store, Scope.ADMIN)
    ring = KeyRing(tmp_path)
    found = ring.check(infer_token)
    assert found is not None
    assert found.key == infer
    assert found.allows(Scope.INFER)
    assert not found.allows(Scope.ADMIN)
    admin = ring.check(admin_token)
    assert admin is not None
    assert admin.allows(Scope.INFER)
    assert admin.allows(Scope.ADMIN)


def test_wrong_tokens_are_nobody(store: KeyStore, tmp_path: Path) -> None:
    info, token = make(store)
    _, other = make(store)
    ring = KeyRing(tmp_path)
    foreign_secret = f"wardrobe_{info.id}_{other.split('_', 2)[2]}"
    wrong = ["", "_", "__", "wardrobe", "wardrobe_", token[:-1], token + "x", token.upper(), foreign_secret]
    wrong += [f"x{token}", f"sk_{token.partition('_')[2]}", "wardrobe_../../x_y", f"{token}\0", f" {token}"]
    wrong += ["wardrobe_" + "é" * 40, "wardrobe_\udcff", "wardrobe_" + "a" * 10_000_000]
    assert [text[:90] for text in wrong if ring.check(text) is not None] == []


def test_a_key_expires_by_itself(tmp_path: Path, clock: Clock) -> None:
    _, token = make(KeyStore(tmp_path, clock=clock), lifetime_seconds=10)
    ring = KeyRing(tmp_path, clock=clock)
    assert ring.check(token) is not None
    clock.now += 10
    assert ring.check(token) is None


def test_a_revoked_key_is_refused_at_the_next_refresh(store: KeyStore, tmp_path: Path, clock: Clock) -> None:
    info, token = make(store)
    ring = KeyRing(tmp_path, clock=clock)
    clock.now += 5
    assert store.revoke(info.id).revoked == 1005
    ring.refresh()
    assert ring.check(token) is None
    clock.now += 5
    assert store.revoke(token).revoked == 1005  # by its whole token, and the first time stands


def test_revoking_the_last_key_does_not_open_the_server_again(store: KeyStore, tmp_path: Path) -> None:
    assert not KeyRing(tmp_path).enabled
    assert not store.in_use()
    info, _ = make(store)
    store.revoke(info.id)
    assert KeyRing(tmp_path).enabled
    assert store.in_use()


def test_the_first_key_switches_a_running_ring_on(store: KeyStore, tmp_path: Path) -> None:
    ring = KeyRing(tmp_path)
    before = ring.enabled
    _, token = make(store)
    assert (before, ring.check(token)) == (False, None)
    assert ring.refresh()
    assert ring.enabled
    assert ring.check(token) is not None


def test_a_ring_that_was_on_stays_on_when_its_folder_vanishes(store: KeyStore, tmp_path: Path) -> None:
    _, token = make(store)
    ring = KeyRing(tmp_path)
    folder = keys_folder(tmp_path)
    folder.rename(tmp_path / "away")
    with pytest.raises(StorageFailed, match="though keys were made"):
        ring.refresh()
    assert ring.enabled
    assert ring.check(token) is not None  # until the keys have been unknown for too long
    folder.mkdir()
    with pytest.raises(StorageFailed, match="wardrobe keys create"):
        ring.refresh()
    assert ring.enabled
    assert ring.check(token) is None


def test_a_folder_that_is_settled_is_not_read_again(store: KeyStore, tmp_path: Path) -> None:
    make(store)
    folder = keys_folder(tmp_path)
    hour_ago = time.time() - 3600
    os.utime(folder, (hour_ago, hour_ago))
    ring = KeyRing(tmp_path)
    assert not ring.refresh()
    make(store)
    assert ring.refresh()
    # A second change within the same tick of the clock would leave the same mtime: read again.
    assert ring.refresh()


def test_a_damaged_key_file_lets_nobody_in_and_keeps_the_ring_on(store: KeyStore, tmp_path: Path) -> None:
    info, token = make(store)
    path = keys_folder(tmp_path) / f"{info.id}.json"
    fields = json.loads(path.read_text())
    damage = [b"", b"{", b"[]", b"\xff", json.dumps({**fields, "scopes": ["root"]}).encode()]
    damage += [json.dumps({**fields, "token_sha256": "zz"}).encode()]
    damage += [json.dumps({**fields, "expires": "never"}).encode()]
    for content in damage:
        path.chmod(0o600)
        path.write_bytes(content)
        ring = KeyRing(tmp_path)
        assert ring.enabled
        assert ring.check(token) is None
        (listed,) = store.list()
        assert (listed.id, listed.state(0.0)) == (info.id, "unreadable")
        assert info.id in listed.problem


def test_keys_are_listed_oldest_first_with_their_state(store: KeyStore, clock: Clock) -> None:
    first, _ = make(store)
    clock.now += 1
    second, _ = make(store, lifetime_seconds=5)
    clock.now += 1
    third, _ = make(store)
    store.revoke(third.id)
    assert [info.id for info in store.list()] == [first.id, second.id, third.id]
    states = [info.state(clock.now + 60) for info in store.list()]
    assert states == ["active", "expired", "revoked"]


@pytest.mark.parametrize("key_id", ["", "nope", "../x", "0" * 12, "wardrobe_000000000000_x", "\0"])
def test_revoking_what_does_not_exist_is_not_found(store: KeyStore, key_id: str) -> None:
    make(store)
    with pytest.raises(NotFound, match="does not exist"):
        store.revoke(key_id)


def test_a_key_without_scope_or_with_a_lifetime_that_is_none_is_refused(store: KeyStore) -> None:
    with pytest.raises(UsageError, match="infer, tune, feedback, read, admin"):
        store.create((), who="test")
    for lifetime in (0, -1, float("nan")):
        with pytest.raises(UsageError, match="lifetime"):
            make(store, lifetime_seconds=lifetime)
    assert not store.in_use()
