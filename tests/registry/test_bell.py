from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from registry.records import Version
from registry.storage import files
from registry.storage.bell import Bell
from registry.store import Registry
from registry.watcher import Watcher
from tests.fakes.store import put

HOUR = 3_600.0
LONG = 30.0  # a wait that nothing ends fails the test, and is no measure of speed


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "changes"
    made.mkdir()
    return made


@pytest.fixture
def bell(folder: Path) -> Iterator[Bell]:
    found = Bell(folder)
    yield found
    found.close()


def woken(bell: Bell) -> bool:
    began = time.monotonic()
    bell.wait(LONG)
    return time.monotonic() - began < LONG


def inotify_descriptors() -> int:
    found = 0
    for one in Path("/proc/self/fd").iterdir():
        try:
            found += str(one.readlink()) in {"anon_inode:inotify", "anon_inode:[eventfd]"}
        except FileNotFoundError:
            continue
    return found


def test_a_mark_ends_the_wait(bell: Bell, folder: Path) -> None:
    bell.arm()
    assert bell.is_armed()
    files.touch(folder / "support")
    assert woken(bell)


def test_a_mark_that_is_stamped_in_its_place_ends_the_wait(bell: Bell, folder: Path) -> None:
    (folder / "support").touch()
    bell.arm()
    os.utime(folder / "support")  # what `touch` does on a full disk
    assert woken(bell)


def test_a_burst_of_marks_is_one_ring(bell: Bell, folder: Path) -> None:
    bell.arm()
    for number in range(256):
        files.touch(folder / f"adapter-{number}")
    assert woken(bell)
    began = time.monotonic()
    bell.wait(0.05)
    assert time.monotonic() - began >= 0.04


def test_a_folder_that_was_made_anew_is_watched_after_the_next_look(bell: Bell, folder: Path) -> None:
    for remove in (folder.rmdir, lambda: folder.rename(folder.with_name("away"))):
        bell.arm()
        remove()
        assert woken(bell)  # that it went is worth a look
        bell.arm()
        assert not bell.is_armed()
        folder.mkdir()
        bell.arm()
        assert bell.is_armed()
        files.touch(folder / "support")
        assert woken(bell)
        for one in folder.iterdir():
            one.unlink()


def test_a_folder_that_is_missing_or_no_folder_leaves_the_poll(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "missing", tmp_path / "file", tmp_path / "file" / "below"):
        bell = Bell(path)
        bell.arm()
        assert not bell.is_armed()
        bell.wait(0.001)
        bell.close()


def test_without_descriptors_left_there_is_the_poll_and_later_the_watch_again(bell: Bell) -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        bell.arm()
        assert not bell.is_armed()
        bell.wait(0.001)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    bell.arm()
    assert bell.is_armed()


def test_release_ends_the_wait_of_another_thread_and_every_later_one(bell: Bell) -> None:
    bell.arm()
    waiter = threading.Thread(target=bell.wait, args=(HOUR,))
    waiter.start()
    bell.release()
    waiter.join(LONG)
    assert not waiter.is_alive()
    assert woken(bell)


def test_a_closed_bell_holds_no_descriptor_and_does_nothing(folder: Path) -> None:
    before = inotify_descriptors()
    bell = Bell(folder)
    bell.arm()
    assert inotify_descriptors() == before + 2
    bell.close()
    bell.close()
    bell.arm()
    bell.release()
    assert woken(bell)
    assert inotify_descriptors() == before


class WatcherOfHours:
    """A watcher that polls once an hour: what it sees meanwhile, the kernel told it."""

    def __init__(self, registry: Registry) -> None:
        self.watcher = Watcher(registry, HOUR, sweep_seconds=24 * HOUR)

    def wait_for(self, true: Callable[[], bool]) -> None:
        deadline = time.monotonic() + LONG
        while not true():
            assert time.monotonic() < deadline
            time.sleep(0.005)


@pytest.fixture
def hourly(registry: Registry) -> Iterator[WatcherOfHours]:
    put(registry, seed=1)
    put(registry, seed=2)
    found = WatcherOfHours(registry)
    found.watcher.start()
    yield found
    found.watcher.stop()


def test_a_watcher_sees_every_change_long_before_its_poll(registry: Registry, hourly: WatcherOfHours) -> None:
    for number in (2, 1, 2):
        registry.promote("support", number, who="tester")
        hourly.wait_for(lambda number=number: stable(hourly) == number)  # type: ignore[misc]
    made: Version = put(registry, "other", seed=3)
    hourly.wait_for(lambda: made.number in versions(hourly, "other"))


def test_a_folder_of_marks_that_was_lost_does_not_blind_a_watcher(registry: Registry) -> None:
    put(registry, seed=1)
    put(registry, seed=2)
    watcher = Watcher(registry, 0.02, sweep_seconds=HOUR)
    watcher.start()
    try:
        for one in (registry.root / "changes").iterdir():
            one.unlink()
        (registry.root / "changes").rmdir()
        registry.promote("support", 2, who="tester")  # makes no folder: the mark is lost with it
        (registry.root / "changes").mkdir(exist_ok=True)
        registry.promote("support", 1, who="tester")
        registry.promote("support", 2, who="tester")
        deadline = time.monotonic() + LONG
        while watcher.view.adapters["support"].aliases["stable"] != 2:
            assert time.monotonic() < deadline
            time.sleep(0.005)
    finally:
        watcher.stop()


def test_changes_do_not_hasten_the_sweep(registry: Registry, hourly: WatcherOfHours) -> None:
    for seed in range(5):
        put(registry, f"other-{seed}", seed=seed)
    hourly.wait_for(lambda: len(hourly.watcher.view.adapters) == 6)
    mark = registry.catalogue.mark
    registry.catalogue.mark = lambda adapter: None  # type: ignore[method-assign]
    registry.set_alias("other-0", "beta", 1, who="tester")
    for number in (2, 1) * 10:
        registry.promote("support", number, who="tester")
        mark("support")
        hourly.wait_for(lambda number=number: stable(hourly) == number)  # type: ignore[misc]
    assert "beta" not in hourly.watcher.view.adapters["other-0"].aliases


def test_stop_ends_the_thread_and_gives_the_descriptors_back(registry: Registry) -> None:
    before = inotify_descriptors()
    for _ in range(3):
        watcher = Watcher(registry, HOUR)
        watcher.start()
        assert inotify_descriptors() == before + 2
        watcher.stop()
        assert inotify_descriptors() == before
    assert not [one for one in threading.enumerate() if one.name == "wardrobe-watcher"]


def stable(hourly: WatcherOfHours) -> int | None:
    return hourly.watcher.view.adapters["support"].aliases.get("stable")


def versions(hourly: WatcherOfHours, adapter: str) -> set[int]:
    found = hourly.watcher.view.adapters.get(adapter)
    return set() if found is None else set(found.versions)
