"""What trains or compiles beside an engine stands still while requests are in flight, and never for ever."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from registry.foreign import python
from registry.store import Registry
from registry.tuning.jobs import TuningJobs
from serve.launcher.restarts import RestartPolicy
from serve.launcher.supervisor import _cancelled
from serve.launcher.tasks import WorkerTasks
from serve.launcher.worker import SupervisedWorker
from serve.launcher.yielding import Yielding, to_group
from serve.router.busy import busy_line
from serve.settings import BUSY, FREE
from tests.fakes.store import make_registry
from tests.fakes.tuning import make_job
from train.worker.process import TASKS, tasks_line

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="descriptors of processes are Linux's")
DEADLINE_SECONDS = 30
FAST = RestartPolicy(first_seconds=0.01, longest_seconds=0.02, limit=1_000_000)


@pytest.fixture
def busy() -> Iterator[subprocess.Popen[bytes]]:
    """A process that never rests, in a group of its own."""
    process = subprocess.Popen([sys.executable, "-P", "-c", "while True: pass"], start_new_session=True)
    yield process
    process.kill()
    process.wait()


def stands(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("T")


def descriptors() -> int:
    return len([*Path("/proc/self/fd").iterdir()])


async def until(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not reached():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)


def say(yielding: Yielding, word: bytes) -> None:
    line = busy_line(yielding.variables())
    assert line is not None
    line(word)


def test_it_stands_while_requests_are_in_flight_and_goes_on_behind_them(
    busy: subprocess.Popen[bytes],
) -> None:
    async def play() -> None:
        yielding = Yielding(60.0)
        yielding.start()
        with yielding.holding(to_group(busy.pid)):
            say(yielding, BUSY)
            await until(lambda: stands(busy.pid))
            say(yielding, FREE)
            await until(lambda: not stands(busy.pid))
            say(yielding, BUSY)
            await until(lambda: stands(busy.pid))
        assert not stands(busy.pid), "what is let go of runs"
        yielding.close()

    asyncio.run(play())


def test_what_begins_under_load_stands_at_once_and_the_end_of_the_engine_lets_it_go(
    busy: subprocess.Popen[bytes],
) -> None:
    async def play() -> None:
        yielding = Yielding(60.0)
        yielding.start()
        say(yielding, BUSY)
        await asyncio.sleep(0.05)
        yielding.add(to_group(busy.pid))
        await until(lambda: stands(busy.pid))
        yielding.forget()
        await until(lambda: not stands(busy.pid))
        yielding.close()

    asyncio.run(play())


def test_under_load_without_end_it_has_its_slices(busy: subprocess.Popen[bytes]) -> None:
    turns: list[str] = []

    async def play() -> None:
        yielding = Yielding(0.05, 0.05)
        yielding.start()
        yielding.add(lambda number: turns.append(number.name))
        say(yielding, BUSY)
        await until(lambda: len(turns) >= 4)
        yielding.close()

    asyncio.run(play())
    assert turns[:4] == ["SIGSTOP", "SIGCONT", "SIGSTOP", "SIGCONT"]
    assert turns[-1] == "SIGCONT"


def test_a_launcher_that_does_not_read_holds_no_request_up() -> None:
    yielding = Yielding(60.0)
    for _ in range(100_000):  # more than a pipe takes
        say(yielding, BUSY)

    async def play() -> None:
        yielding.start()
        yielding.close()

    asyncio.run(play())
    assert busy_line({}) is None


def test_the_worker_says_which_of_its_tasks_run(
    busy: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def play() -> None:
        yielding = Yielding(60.0)
        yielding.start()
        tasks = WorkerTasks(yielding)
        monkeypatch.setenv(TASKS, str(tasks.writing))
        tell = tasks_line()
        with tasks.following():
            say(yielding, BUSY)
            tell(f"begun {busy.pid}")
            await until(lambda: stands(busy.pid))
            tell(f"left {busy.pid}")
            await until(lambda: not stands(busy.pid))
            tell(f"begun {busy.pid}")
            await until(lambda: stands(busy.pid))
            busy.kill()
            await until(lambda: not tasks._held)
            tell("begun 999999999\nnonsense\nleft 7\nbegun x")  # nobody is signalled, nothing breaks
            await asyncio.sleep(0.05)
        yielding.close()

    asyncio.run(play())
    assert TASKS not in os.environ, "tasks do not inherit it"


def test_a_worker_that_cannot_be_started_leaves_no_descriptor(tmp_path: Path) -> None:
    registry = make_registry(tmp_path)
    make_job(TuningJobs(registry.catalogue.root))
    said: list[str] = []

    async def play() -> None:
        yielding = Yielding(60.0)
        worker = SupervisedWorker(registry.catalogue.root, [str(tmp_path)], {}, said.append, yielding)
        before = descriptors()
        for _ in range(3):
            worker.policy = FAST
            await worker._work()
        assert descriptors() == before
        yielding.start()
        yielding.close()

    asyncio.run(play())
    assert "cannot be started" in said[0]


def test_a_task_of_a_real_worker_stands_and_may_end_its_step_when_the_server_stops(tmp_path: Path) -> None:
    registry: Registry = make_registry(tmp_path)
    make_job(TuningJobs(registry.catalogue.root))
    told = tmp_path / "told"
    end = f"sys.exit(open({str(told)!r}, 'a').write('end'))"
    task = f"import signal, sys; signal.signal(15, lambda *_: {end}); print('listens', flush=True)"
    program = f"""
import signal, subprocess, sys
from train.worker.process import tasks_line
say = tasks_line()
task = subprocess.Popen([sys.executable, "-P", "-c", {task!r} + "\\nwhile True: pass"])
signal.signal(15, lambda *_: task.terminate())
print(task.pid, flush=True)
say(f"begun {{task.pid}}")
task.wait()
"""
    said: list[str] = []

    async def play() -> None:
        yielding = Yielding(60.0)
        yielding.start()
        command = python("-c", program)
        worker = SupervisedWorker(registry.catalogue.root, command, dict(os.environ), said.append, yielding)
        worker.look_seconds = 0.01
        running = asyncio.create_task(worker.run())
        await until(lambda: len(said) == 2)  # both words: its handler is set
        pid = next(int(word) for line in said if (word := line.rpartition(" ")[2]).isdigit())
        say(yielding, BUSY)
        await until(lambda: stands(pid))
        await _cancelled(running)
        yielding.close()

    asyncio.run(play())
    assert told.read_text() == "end"
