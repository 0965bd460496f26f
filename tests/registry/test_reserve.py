"""A full disk: reading reads, what takes something away works, and the room for it is made whole again."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from registry.entries.keyring import KeyRing
from registry.entries.keys import KeyStore
from registry.entries.rights import Scope
from registry.errors import DiskFull, StorageFailed
from registry.names import parse_model
from registry.storage import disk, files, reserve
from registry.store import Registry
from registry.watcher import Watcher
from tests.fakes.store import leftovers, make_registry, put

GROWING = ("mkdir", "write", "copy", "append")


def left(root: Path) -> int:
    """Return how many whole files the reserve has."""
    found = [path.stat().st_size for path in (root / reserve.NAME).iterdir() if path.name[0] != "."]
    assert set(found) <= {reserve.FILE_BYTES}
    return len(found)


def full(label: str) -> None:
    """Refuse every step that takes a block or an inode."""
    if label.startswith(GROWING):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    registry = make_registry(tmp_path)
    for seed in (1, 2, 3):
        put(registry, seed=seed)
    registry.promote("support", 2, who="tester")
    return registry


def test_a_root_is_made_with_a_reserve(registry: Registry) -> None:
    assert left(registry.root) == reserve.FILES


URGENT: dict[str, Callable[[Registry], object]] = {
    "delete": lambda r: r.delete("support", 3, who="tester"),
    "quarantine": lambda r: r.quarantine("support", 3, "it harms", who="tester"),
    "rollback": lambda r: r.rollback("support", who="tester"),
    "remove an alias": lambda r: r.remove_alias("support", "stable", who="tester"),
}


@pytest.mark.parametrize("name", URGENT)
def test_what_takes_something_away_works_on_a_full_disk(name: str, registry: Registry) -> None:
    with files.watch_steps(full):
        URGENT[name](registry)
    assert left(registry.root) == reserve.FILES - 1
    assert list(leftovers(registry.root)) == []
    assert reserve.fill(registry.root)
    assert left(registry.root) == reserve.FILES


def test_a_key_is_revoked_on_a_full_disk(registry: Registry) -> None:
    store = KeyStore(registry.root)
    info, token = store.create([Scope.INFER], who="tester")
    with files.watch_steps(full):
        store.revoke(info.id)
    assert KeyRing(registry.root).check(token) is None


def test_keys_are_revoked_on_a_full_disk_also_without_a_reserve(registry: Registry) -> None:
    store = KeyStore(registry.root)
    made = [store.create([Scope.INFER], who="tester") for _ in range(3)]
    ring = KeyRing(registry.root)
    shutil.rmtree(registry.root / reserve.NAME)
    with files.watch_steps(full):
        for info, _ in made:
            store.revoke(info.id)
    ring.refresh()
    assert [ring.check(token) for _, token in made] == [None] * 3
    assert {info.state(0.0) for info in store.list()} == {"revoked"}
    assert not [info.problem for info in store.list() if info.problem]


def test_a_reserve_that_cannot_be_read_is_as_good_as_none(registry: Registry) -> None:
    info, token = KeyStore(registry.root).create([Scope.INFER], who="tester")
    shutil.rmtree(registry.root / reserve.NAME)
    (registry.root / reserve.NAME).symlink_to(reserve.NAME)
    with files.watch_steps(full):
        with pytest.raises(DiskFull, match="the reserve is used up"):
            registry.delete("support", 3, who="tester")
        KeyStore(registry.root).revoke(info.id)
    assert KeyRing(registry.root).check(token) is None


def test_what_adds_something_leaves_the_reserve_alone(registry: Registry) -> None:
    with files.watch_steps(full):
        for adding in (
            lambda: registry.promote("support", 3, who="tester"),
            lambda: registry.attest("support", 1, "proof", {}, who="tester"),
            lambda: KeyStore(registry.root).create([Scope.INFER], who="tester"),
        ):
            with pytest.raises(DiskFull, match="gc --apply --now"):
                adding()
    assert left(registry.root) == reserve.FILES


def test_a_reserve_that_is_used_up_is_told(registry: Registry) -> None:
    shutil.rmtree(registry.root / reserve.NAME)
    with files.watch_steps(full), pytest.raises(DiskFull, match="and the reserve is used up"):
        registry.delete("support", 3, who="tester")


def test_a_file_of_the_reserve_without_its_blocks_is_passed_over(registry: Registry) -> None:
    folder = registry.root / reserve.NAME
    (folder / "0").write_bytes(b"cut short by a crash")
    os.truncate(folder / "1", 0)
    os.truncate(folder / "1", reserve.FILE_BYTES)  # a hole: its blocks would have to be found
    with files.watch_steps(full):
        registry.delete("support", 3, who="tester")
    assert registry.catalogue.tombstones.numbers("support") == [3]
    assert left(registry.root) == reserve.FILES - 3
    assert reserve.fill(registry.root)
    assert left(registry.root) == reserve.FILES


def test_two_at_once_never_write_into_one_file_of_the_reserve(registry: Registry) -> None:
    """Each is stopped after it took a file, while the other takes one."""
    store = KeyStore(registry.root)
    keys = [store.create([Scope.INFER], who="tester") for _ in range(2)]
    inner: list[str] = []

    def interleave(label: str) -> None:
        full(label)
        if label.startswith("overwrite") and not inner:
            inner.append(label)
            store.revoke(keys[1][0].id)

    with files.watch_steps(interleave):
        store.revoke(keys[0][0].id)
    ring = KeyRing(registry.root)
    assert [ring.check(token) for _, token in keys] == [None, None]
    assert {info.state(0.0) for info in store.list()} == {"revoked"}
    assert left(registry.root) == reserve.FILES - 2


def test_a_kill_at_any_step_leaves_the_key_as_it_was_or_revoked(registry: Registry) -> None:
    store = KeyStore(registry.root)
    states = set()
    for index in range(20):
        info, token = store.create([Scope.INFER], who="tester")
        child = os.fork()
        if child == 0:
            seen: list[str] = []

            def kill(label: str, index: int = index, seen: list[str] = seen) -> None:
                if len(seen) == index:
                    os._exit(9)
                seen.append(label)
                full(label)

            with files.watch_steps(kill):
                store.revoke(info.id)
            os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        revoked = KeyRing(registry.root).check(token) is None
        states.add(revoked)
        assert left(registry.root) >= reserve.FILES - index - 1
        if code == 0:
            assert revoked
            break
    assert (code, states) == (0, {False, True})


def test_the_reserve_of_an_older_version_is_replaced(registry: Registry) -> None:
    shutil.rmtree(registry.root / reserve.NAME)
    (registry.root / reserve.NAME).write_bytes(b"x" * 262_144)
    assert reserve.fill(registry.root)
    assert left(registry.root) == reserve.FILES


def test_watchers_are_told_of_a_change_that_found_no_room(registry: Registry) -> None:
    watcher = Watcher(registry)
    watcher.refresh()
    with files.watch_steps(full):
        registry.rollback("support", who="tester")
    watcher.refresh()
    assert watcher.view.resolve(parse_model("support")).number == 1


def test_a_collection_at_once_needs_no_room_and_frees_all(registry: Registry) -> None:
    registry.delete("support", 3, who="tester")
    registry.gc(apply=True)
    registry.delete("support", 1, who="tester")
    shutil.rmtree(registry.root / reserve.NAME)
    with files.watch_steps(full):
        report = registry.gc(apply=True, at_once=True)
    assert report.trashed == ()
    assert "support@1" in report.emptied
    assert [name for name in report.emptied if name.startswith("trash/")]
    assert disk.names(registry.root / "trash") == []
    assert registry.catalogue.versions.numbers("support") == [2]
    assert put(registry, seed=4).number == 4  # a number is never used again


def test_a_collection_at_once_keeps_what_is_used(registry: Registry) -> None:
    registry.catalogue.tombstones.put("support", 2, None, "a delete that was killed")
    report = registry.gc(apply=True, at_once=True)
    assert report.kept_because == {"support@2": "alias stable points to it"}
    assert registry.catalogue.versions.numbers("support") == [1, 2, 3]


def test_a_reserve_that_cannot_be_made_is_no_failure(registry: Registry) -> None:
    shutil.rmtree(registry.root / reserve.NAME)

    def refuse(_: str) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    with files.watch_steps(refuse):
        assert not reserve.fill(registry.root)
        with pytest.raises(StorageFailed, match="Read-only"):
            registry.delete("support", 3, who="tester")
