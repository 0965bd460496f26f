"""A file system that refuses a step: a clear error, nothing half-visible, nothing left behind."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from registry.errors import StorageFailed
from registry.storage import files
from registry.store import Registry
from tests.fakes.adapters import make_adapter
from tests.fakes.store import leftovers, make_registry, publish, put, snapshot

# What a full disk refuses; it does not refuse to unlink or to change a mode.
GROWING = ("mkdir", "write", "copy", "link", "rename")
URGENT = {"rollback", "delete", "quarantine"}
"""What takes something away works on a full disk: the root keeps a reserve for it."""

ACTIONS: dict[str, Callable[[Registry], object]] = {
    "publish-first": lambda r: publish(r, "fresh", seed=5, lineage={"seed": 5}),
    "publish-next": lambda r: publish(r, seed=5, alias="stable"),
    "alias": lambda r: r.set_alias("support", "beta", 2, who="tester"),
    "rollback": lambda r: r.rollback("support", who="tester"),
    "delete": lambda r: r.delete("support", 1, who="tester"),
    "quarantine": lambda r: r.quarantine("support", 1, "it harms", who="tester"),
    "attest": lambda r: r.attest("support", 1, "proof", {"passed": True}, who="tester"),
    "secret": lambda r: r.secret("mac"),
    "export": lambda r: r.export("support", 1, r.root.parent / "exported"),
}


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "No space left on device"),
        (errno.EACCES, "Permission denied"),
        (errno.EROFS, "Read-only"),
    ],
    ids=["full", "denied", "read-only"],
)
@pytest.mark.parametrize("name", ACTIONS)
def test_a_step_that_is_refused_is_named_and_leaves_nothing(
    name: str, number: int, words: str, tmp_path: Path
) -> None:
    registry = make_registry(tmp_path / "template")
    put(registry, seed=1)
    put(registry, seed=2, alias="stable")
    make_adapter(tmp_path / "template" / "trained-5", seed=5)
    before = snapshot(registry)
    refused = 0
    for index in range(len(_growing_steps(name, tmp_path))):
        world = Path(shutil.copytree(tmp_path / "template", tmp_path / f"world-{index}"))
        copy = Registry.open(world / "root")
        error = _refusal(copy, name, _refuse_at(index, number))
        if error is not None:
            refused += 1
            assert words in str(error)
            assert error.remedy
            assert "is registered, but" in str(error) or snapshot(copy) == before
        assert list(leftovers(copy.root)) == []
        assert [path for path in copy.root.glob("adapters/*/versions") if not any(path.iterdir())] == []
        assert all(result.ok for result in copy.verify())
        assert (world / "exported").exists() == (name == "export" and error is None)
    if number == errno.ENOSPC and name in URGENT:
        assert refused == 0
    else:
        assert refused >= 2


def _refusal(registry: Registry, name: str, refuse: Callable[[str], None]) -> StorageFailed | None:
    try:
        with files.watch_steps(refuse):
            ACTIONS[name](registry)
    except StorageFailed as error:
        return error
    return None


def _growing_steps(name: str, tmp_path: Path) -> list[str]:
    world = Path(shutil.copytree(tmp_path / "template", tmp_path / "counted"))
    steps: list[str] = []
    with files.watch_steps(steps.append):
        ACTIONS[name](Registry.open(world / "root"))
    return [label for label in steps if label.startswith(GROWING)]


def _refuse_at(index: int, number: int) -> Callable[[str], None]:
    seen: list[str] = []

    def refuse(label: str) -> None:
        if label.startswith(GROWING):
            seen.append(label)
            if len(seen) == index + 1:
                raise OSError(number, os.strerror(number))

    return refuse


def test_weights_that_do_not_fit_leave_no_version_and_no_staging(tmp_path: Path) -> None:
    """The refusal here is the kernel's own: a limit on the size of files in a child process."""
    registry = make_registry(tmp_path)
    put(registry, seed=1)
    make_adapter(tmp_path / "trained-2", seed=2)
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        try:
            put(registry, seed=2)
        except StorageFailed as error:
            os._exit(0 if "File too large" in str(error) else 2)
        finally:
            os._exit(3)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert [version.number for version in registry.versions("support")] == [1]
    assert list(leftovers(registry.root)) == []
    assert put(registry, seed=2).number == 2


def test_an_interrupted_registration_is_completed_by_registering_again(tmp_path: Path) -> None:
    registry = make_registry(tmp_path)

    def refuse(label: str) -> None:
        if label.startswith("link 1.json"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with (
        files.watch_steps(refuse),
        pytest.raises(StorageFailed, match=r"support@1: is registered, but .* register it again"),
    ):
        put(registry, seed=1)
    again = publish(registry, seed=1)
    assert (again.created, again.version.number) == (False, 1)
    assert registry.aliases("support") == {"stable": 1}
