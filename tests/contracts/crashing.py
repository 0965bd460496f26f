"""Processes that are killed between two steps of the store, and processes that act at once."""

from __future__ import annotations

import errno
import json
import os
import signal
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

from registry.storage import files


def kill_at(index: int, act: Callable[[], object], *, links: bool = True) -> None:
    """Run `act` in a child process that is killed just before step `index`."""
    child = _fork()
    if child == 0:
        try:
            with files.watch_steps(_killer(index, links)):
                act()
        except Exception:  # noqa: BLE001 - shown, and the parent sees that nobody was killed
            traceback.print_exc()
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) == signal.SIGKILL


def break_links(label: str, links: bool) -> None:
    """Refuse a hard link, as some network mounts do, unless `links`."""
    if not links and label.startswith("link "):
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))


def together(count: int, act: Callable[[int], object], folder: Path) -> list[object]:
    """Run `act(n)` in `count` processes at once and return what each returned (as JSON)."""
    children = []
    gate_read, gate_write = os.pipe()
    for number in range(count):
        child = _fork()
        if child == 0:
            _act_and_exit(number, act, folder, (gate_read, gate_write))
        children.append(child)
    os.close(gate_read)
    os.close(gate_write)  # every child waits for this
    for child in children:
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
    return [json.loads((folder / f"result-{number}").read_text()) for number in range(count)]


def _fork() -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 on: a fork beside other threads
        return os.fork()


def _act_and_exit(number: int, act: Callable[[int], object], folder: Path, gate: tuple[int, int]) -> None:
    status = 1
    try:
        os.close(gate[1])
        os.read(gate[0], 1)
        (folder / f"result-{number}").write_text(json.dumps(act(number)))
        status = 0
    except Exception:  # noqa: BLE001 - shown, and the parent sees the exit code
        traceback.print_exc()
    finally:
        os._exit(status)


def _killer(index: int, links: bool) -> Callable[[str], None]:
    labels: list[str] = []

    def on_step(label: str) -> None:
        if len(labels) == index:
            os.kill(os.getpid(), signal.SIGKILL)
        labels.append(label)
        break_links(label, links)

    return on_step
