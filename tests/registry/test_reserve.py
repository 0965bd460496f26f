"""A full disk: reading reads, what takes something away works, and the room for it is made whole again."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from registry import anchor, disk, files, reserve
from registry.errors import DiskFull, StorageFailed
from registry.keys import KeyRing, KeyStore, Scope
from registry.store import Registry
from tests.fakes.store import make_registry, put
from tests.fakes.terminal import Done, Terminal

GROWING = ("mkdir", "write", "copy", "append")


def size_of(root: Path) -> int:
    path = root / reserve.NAME
    return path.stat().st_size if path.exists() else 0


class Disk:
    """A disk with so many bytes left, as the steps of this thread meet it; the reserve is part of it."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.free = 0
        self._reserved = size_of(root)

    def __call__(self, label: str) -> None:
        now = size_of(self._root)
        self.free, self._reserved = self.free + self._reserved - now, now
        if label.startswith(GROWING):
            if self.free < 4_096:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self.free -= 4_096


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    registry = make_registry(tmp_path)
    for seed in (1, 2, 3):
        put(registry, seed=seed)
    registry.promote("support", 2, who="tester")
    return registry


def test_a_root_is_made_with_a_reserve(registry: Registry) -> None:
    assert size_of(registry.root) == reserve.SLICES * reserve.SLICE_BYTES


URGENT: dict[str, Callable[[Registry], object]] = {
    "delete": lambda r: r.delete("support", 3, who="tester"),
    "quarantine": lambda r: r.quarantine("support", 3, "it harms", who="tester"),
    "rollback": lambda r: r.rollback("support", who="tester"),
    "remove an alias": lambda r: r.remove_alias("support", "stable", who="tester"),
}


@pytest.mark.parametrize("name", URGENT)
def test_what_takes_something_away_works_on_a_full_disk(name: str, registry: Registry) -> None:
    with files.watch_steps(Disk(registry.root)):
        URGENT[name](registry)
    assert 0 < size_of(registry.root) < reserve.SLICES * reserve.SLICE_BYTES
    assert reserve.fill(registry.root)
    assert size_of(registry.root) == reserve.SLICES * reserve.SLICE_BYTES


def test_a_key_is_revoked_on_a_full_disk(registry: Registry) -> None:
    store = KeyStore(registry.root)
    info, token = store.create([Scope.INFER], who="tester")
    with files.watch_steps(Disk(registry.root)):
        store.revoke(info.id)
    assert KeyRing(registry.root).check(token) is None


def test_what_adds_something_leaves_the_reserve_alone(registry: Registry) -> None:
    with files.watch_steps(Disk(registry.root)):
        for adding in (
            lambda: registry.promote("support", 3, who="tester"),
            lambda: registry.attest("support", 1, "proof", {}, who="tester"),
            lambda: KeyStore(registry.root).create([Scope.INFER], who="tester"),
        ):
            with pytest.raises(DiskFull, match="gc --apply --now"):
                adding()
    assert size_of(registry.root) == reserve.SLICES * reserve.SLICE_BYTES


def test_a_reserve_that_is_used_up_is_told(registry: Registry) -> None:
    (registry.root / reserve.NAME).unlink()
    with files.watch_steps(Disk(registry.root)), pytest.raises(DiskFull):
        registry.delete("support", 3, who="tester")


def test_a_collection_at_once_needs_no_room_and_frees_all(registry: Registry) -> None:
    registry.delete("support", 3, who="tester")
    registry.gc(apply=True)
    registry.delete("support", 1, who="tester")
    (registry.root / reserve.NAME).unlink()
    full = Disk(registry.root)
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


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a disk of 4 MiB, where this user may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if done.returncode:
        pytest.skip("mounting needs the rights of root; the other tests here refuse the steps themselves")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder: Path) -> None:
    """Fill the disk to the last byte."""
    for size in (65_536, 4_096, 1):
        with (folder / f"filler-{size}").open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(b"\xff" * size):
                pass
    assert shutil.disk_usage(folder).free == 0


def test_every_verb_on_a_disk_that_is_really_full(small_disk: Path, tmp_path: Path) -> None:
    registry = make_registry(small_disk)
    for seed in (1, 2):
        put(registry, seed=seed)
    key, _ = KeyStore(registry.root).create([Scope.INFER], who="tester")
    fill(small_disk)

    terminal = Terminal(("--root", str(registry.root)))

    def wardrobe(*line: str) -> Done:
        anchor.drop(registry.root)  # as a process of its own has never opened it
        return terminal(*line)

    reading = (
        ["list"], ["status"], ["show", "support"], ["history", "support"], ["verify"], ["keys", "list"],
        ["rollout", "list"], ["gc"],
    )  # fmt: skip
    for line in reading:
        done = wardrobe(*line)
        assert (done.code, done.err) == (0, ""), line
    assert wardrobe("export", "support@1", str(tmp_path / "out")).code == 0
    refused = wardrobe("alias", "set", "support", "mine", "1")
    assert refused.code == 1
    assert "No space left on device" in refused.err
    assert "wardrobe gc --apply --now" in refused.err
    for line in (["keys", "revoke", key.id], ["delete", "support@2"], ["gc", "--apply", "--now"]):
        done = wardrobe(*line)
        assert (done.code, done.err) == (0, ""), line
    assert [one["version"] for one in wardrobe("--json", "show", "support").json["versions"]] == [1]
    assert wardrobe("alias", "set", "support", "mine", "1").code == 0  # there is room again


def test_a_reserve_that_cannot_be_made_is_no_failure(registry: Registry) -> None:
    (registry.root / reserve.NAME).unlink()

    def refuse(_: str) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    with files.watch_steps(refuse):
        assert not reserve.fill(registry.root)
        with pytest.raises(StorageFailed, match="Read-only"):
            registry.delete("support", 3, who="tester")
