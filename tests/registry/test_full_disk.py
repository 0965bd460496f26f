"""Disks that are really full, of bytes or of inodes, while somebody takes each one that becomes free.

The disks are mounted here, where this user may; `test_reserve` refuses the steps themselves everywhere.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from registry.entries.keyring import KeyRing
from registry.entries.keys import KeyStore
from registry.entries.rights import Scope
from registry.storage import anchor, disk
from registry.store import Registry
from tests.fakes.store import make_registry, put
from tests.fakes.terminal import Done, Terminal

KINDS = ("tmpfs-bytes", "tmpfs-inodes", "ext4-bytes", "ext4-inodes")
KEYS = 24
ADAPTERS = ("a", "b", "c")
VERSIONS = 4
READING = ("list", "status", "verify", "show a", "history a", "keys list", "rollout list", "gc")


def run(*line: str) -> bool:
    try:
        return subprocess.run(line, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


def mount(kind: str, folder: Path, image: Path) -> bool:
    system, _, lack = kind.partition("-")
    if system == "tmpfs":
        size = "size=16m" if lack == "bytes" else "size=64m,nr_inodes=1200"
        return run("mount", "-t", "tmpfs", "-o", size, "tmpfs", str(folder))
    with image.open("wb") as file:
        file.truncate(32 * 1024**2)
    inodes = () if lack == "bytes" else ("-N", "1200")
    return run("mkfs.ext4", "-q", "-m", "0", *inodes, str(image)) and run(
        "mount", "-o", "loop", str(image), str(folder)
    )


@pytest.fixture(params=KINDS)
def small_disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """Mount a small disk; return its folder and what it will lack."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if not mount(request.param, folder, tmp_path / "image"):
        pytest.skip("mounting needs the rights of root; test_reserve refuses the steps themselves")
    yield folder, request.param.partition("-")[2]
    subprocess.run(["umount", "-l", str(folder)], check=True)


@contextlib.contextmanager
def greedy(folder: Path, lack: str) -> Iterator[None]:
    """Fill the disk, and go on taking what gets free until the block ends."""
    filler = folder / "filler"
    filler.mkdir()
    stop, full = threading.Event(), threading.Event()
    with (filler / "log").open("ab", buffering=0) as log:

        def take() -> bool:
            try:
                if lack == "bytes":
                    log.write(b"x" * 512)
                else:
                    (filler / os.urandom(8).hex()).touch()
            except OSError:
                full.set()
                return False
            return True

        def loop() -> None:
            while not stop.is_set():
                if not take():
                    stop.wait(0.001)

        for size in (65_536, 4_096) if lack == "bytes" else ():
            with contextlib.suppress(OSError):
                while log.write(b"\xff" * size):
                    pass
        thread = threading.Thread(target=loop)
        thread.start()
        try:
            assert full.wait(60)
            yield
        finally:
            stop.set()
            thread.join()


def wardrobe(root: Path, *line: str) -> Done:
    anchor.drop(root)  # as a process of its own has never opened it
    return Terminal(("--root", str(root)))(*line)


def succeed(root: Path, *lines: str) -> None:
    for line in lines:
        done = wardrobe(root, *line.split())
        assert (done.code, done.err) == (0, ""), line


def make(folder: Path) -> Registry:
    registry = make_registry(folder)
    for name in ADAPTERS:
        for seed in range(1, VERSIONS + 1):
            put(registry, name, seed=seed)
        registry.promote(name, 2, who="tester")
        registry.set_alias(name, "mine", 1, who="tester")
    shutil.rmtree(folder / "base", ignore_errors=True)
    return registry


def test_what_takes_away_works_on_a_disk_that_stays_full(small_disk: tuple[Path, str]) -> None:
    folder, lack = small_disk
    registry = make(folder)
    root = registry.root
    store = KeyStore(root)
    made = [store.create([Scope.INFER], who="tester") for _ in range(KEYS)]
    succeed(root, *(f"rollout start {name}@3" for name in ADAPTERS))
    with greedy(folder, lack):
        succeed(root, *(f"keys revoke {info.id}" for info, _ in made))
        succeed(root, "rollout pause a", *(f"rollout abort {name}" for name in ADAPTERS))
        succeed(root, *(f"rollback {name}" for name in ADAPTERS))
        succeed(root, *(f"alias remove {name} mine" for name in ADAPTERS))
        succeed(root, *(f"delete {name}@{n}" for name in ADAPTERS for n in (3, 4)))
        succeed(root, *READING, "gc --apply --now")
        ring = KeyRing(root)
        assert not [info for info, token in made if ring.check(token) is not None]
    assert registry.aliases("a") == {"stable": 1}
    assert registry.catalogue.versions.numbers("a") == [1, 2]


def test_what_adds_is_refused_with_a_way_out_that_helps(small_disk: tuple[Path, str]) -> None:
    folder, lack = small_disk
    registry = make(folder)
    with greedy(folder, lack):
        refused = wardrobe(registry.root, "alias", "set", "a", "other", "1")
        assert refused.code == 1
        assert "No space left on device" in refused.err
        assert ("no inodes left (`df -i`)" in refused.err) == (lack == "inodes")
    succeed(registry.root, "delete a@3", "delete b@3", "gc --apply --now", "alias set a other 1")
    assert len(disk.names(registry.root / "reserve")) > 0
