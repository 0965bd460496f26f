from __future__ import annotations

import os
from pathlib import Path

import pytest

from registry.storage import files
from registry.storage.syncing import Unsynced


def descriptors() -> set[str]:
    return {one.name for one in Path("/proc/self/fd").iterdir()}


@pytest.mark.parametrize("slow_seconds", [0.0, 60.0], ids=["at once", "one after the other"])
def test_what_waits_for_its_fsync_is_closed_after_it(slow_seconds: float, tmp_path: Path) -> None:
    before = len(descriptors())
    with Unsynced(slow_seconds) as unsynced:
        for number in range(20):
            files.stage(tmp_path / str(number), b"x", unsynced=unsynced)
        unsynced.add_folder(tmp_path)
        unsynced.sync()
        assert len(descriptors()) == before
        unsynced.sync()  # nothing is left to do


@pytest.mark.parametrize("slow_seconds", [0.0, 60.0], ids=["at once", "one after the other"])
def test_a_refused_fsync_is_raised(slow_seconds: float, tmp_path: Path) -> None:
    before = len(descriptors())
    reading, writing = os.pipe()  # the kernel refuses to fsync a pipe
    with Unsynced(slow_seconds) as unsynced:
        files.stage(tmp_path / "first", b"x", unsynced=unsynced)
        unsynced.add(writing)
        files.stage(tmp_path / "last", b"x", unsynced=unsynced)
        with pytest.raises(OSError, match="Invalid argument"):
            unsynced.sync()
    os.close(reading)
    os.close(writing)
    assert len(descriptors()) == before


def test_a_block_that_ends_early_leaves_no_descriptor(tmp_path: Path) -> None:
    before = len(descriptors())

    def give_up() -> None:
        with Unsynced() as unsynced:
            files.stage(tmp_path / "file", b"x", unsynced=unsynced)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        give_up()
    assert len(descriptors()) == before
