"""A disk without room and a second repair to one file end in an error, and leave nothing behind."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import pytest

from registry.errors import Conflict, DiskFull, StorageFailed
from train.dataset.repair.repairing import repair_file
from train.dataset.repair.rules import RepairSettings
from train.dataset.room import room

ROW = '{"prompt": "What is it?", "completion": "It is a thing."}\n'


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), OSError("1024 requested and 512 written")]
)
def test_a_full_disk_names_the_folders_and_the_way_to_room(tmp_path: Path, error: OSError) -> None:
    with pytest.raises(DiskFull, match=f"{tmp_path} or .*TMPDIR"), room(tmp_path):
        raise error


def test_a_file_that_vanished_is_named() -> None:
    with pytest.raises(StorageFailed, match=r"gone\.jsonl"), room():
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", "gone.jsonl")


def test_two_repairs_to_one_file_do_not_mix(tmp_path: Path) -> None:
    source, out = tmp_path / "rows.jsonl", tmp_path / "clean.jsonl"
    source.write_text(ROW)
    work = tmp_path / ".clean.jsonl.repair"
    work.mkdir()
    first = os.open(work, os.O_RDONLY)
    fcntl.flock(first, fcntl.LOCK_EX)
    with pytest.raises(Conflict, match="being written by another process"):
        repair_file(source, out, RepairSettings())
    assert work.exists()
    assert not out.exists()
    os.close(first)
    assert repair_file(source, out, RepairSettings()).kept == 1
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["clean.jsonl", "clean.report.jsonl", "rows.jsonl"]
