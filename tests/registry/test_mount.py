from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from registry.errors import UnsafeRoot
from registry.storage import mount


def contents(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def test_a_local_disk_passes_and_nothing_stays(tmp_path: Path) -> None:
    mount.self_test(tmp_path)
    assert contents(tmp_path) == []


def test_a_mount_that_may_only_be_read_is_left_untested(tmp_path: Path) -> None:
    mount.self_test(tmp_path / "absent")
    assert contents(tmp_path) == []


class Overwriting(mount.MountSteps):
    """A mount whose rename replaces a full folder, as some object-store mounts do."""

    def rename(self, source: Path, target: Path) -> None:
        if target.is_dir():
            return
        super().rename(source, target)


class Relinking(mount.MountSteps):
    """A mount whose link replaces a file."""

    def link(self, source: Path, target: Path) -> None:
        target.unlink(missing_ok=True)
        super().link(source, target)


class Unrenaming(mount.MountSteps):
    """A mount that cannot rename at all."""

    def rename(self, source: Path, target: Path) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))


class Linkless(mount.MountSteps):
    """A mount without hard links, which is fine."""

    def link(self, source: Path, target: Path) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        (Overwriting(), "a rename replaces a folder"),
        (Relinking(), "a link replaces a file"),
        (Unrenaming(), "renaming files fails here"),
    ],
)
def test_a_mount_that_would_lose_work_is_refused(steps: mount.MountSteps, words: str, tmp_path: Path) -> None:
    with pytest.raises(UnsafeRoot, match=words) as caught:
        mount.self_test(tmp_path, steps)
    assert "put the root on a local disk or on NFS 4" in str(caught.value)
    assert contents(tmp_path) == []


def test_a_mount_without_hard_links_is_accepted(tmp_path: Path) -> None:
    mount.self_test(tmp_path, Linkless())
    assert contents(tmp_path) == []
