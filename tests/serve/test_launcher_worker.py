"""The worker beside the engine: started when a job waits, begun again when it ends, gone with the server."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

from registry.foreign import python
from registry.store import Registry
from registry.tuning.jobs import TuningJobs
from registry.tuning.machine import JobEvent
from serve.launcher.restarts import RestartPolicy
from serve.launcher.supervisor import _cancelled
from serve.launcher.worker import PROGRAM, SupervisedWorker, is_wanted
from tests.fakes.store import make_registry
from tests.fakes.tuning import make_job

DEADLINE_SECONDS = 60
FAST = RestartPolicy(first_seconds=0.01, longest_seconds=0.02, limit=1_000_000)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return make_registry(tmp_path)


def worker(registry: Registry, said: list[str], program: str) -> SupervisedWorker:
    command = python("-c", program)
    found = SupervisedWorker(registry.catalogue.root, command, dict(os.environ), said.append)
    found.policy, found.look_seconds = FAST, 0.01
    return found


def test_a_worker_takes_less_than_everybody_else_from_its_first_moment(
    registry: Registry, tmp_path: Path
) -> None:
    """Its imports alone would take a core from the engine for seconds."""
    make_job(TuningJobs(registry.catalogue.root))
    told = tmp_path / "told"
    look = f"open({str(told)!r}, 'w').write(str(os.sched_getscheduler(0)))"
    program = f"import os, time; time.sleep(0.5); {look}"

    async def run() -> None:
        watching = asyncio.create_task(worker(registry, [], program).run())
        await until(lambda: told.exists() and bool(told.read_text()))
        await _cancelled(watching)

    asyncio.run(run())
    assert int(told.read_text()) == os.SCHED_IDLE


async def until(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not reached():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def ended(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.wait({task})


def test_nothing_runs_before_a_job_waits_and_each_line_is_marked(registry: Registry) -> None:
    said: list[str] = []

    async def play() -> None:
        task = asyncio.create_task(worker(registry, said, "print('here')").run())
        await asyncio.sleep(0.1)
        assert said == []
        make_job(TuningJobs(registry.catalogue.root))
        await until(lambda: len(said) >= 2)
        await ended(task)

    asyncio.run(play())
    assert set(said) == {"worker: here"}


def test_one_that_fails_is_begun_again_and_its_end_is_told_once(registry: Registry, tmp_path: Path) -> None:
    said: list[str] = []
    make_job(TuningJobs(registry.catalogue.root))
    program = f"open({str(tmp_path / 'starts')!r}, 'a').write('x'); raise SystemExit(3)"

    async def play() -> None:
        task = asyncio.create_task(worker(registry, said, program).run())
        await until(lambda: (tmp_path / "starts").exists() and len((tmp_path / "starts").read_text()) >= 3)
        await ended(task)

    asyncio.run(play())
    (told,) = said
    assert told.startswith("warning: worker: ended (exit code 3); starting it again in ")


def test_it_ends_with_the_server(registry: Registry) -> None:
    said: list[str] = []
    make_job(TuningJobs(registry.catalogue.root))
    program = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"

    async def play() -> None:
        task = asyncio.create_task(worker(registry, said, program).run())
        await until(lambda: bool(said))
        await ended(task)

    asyncio.run(play())
    with pytest.raises(ProcessLookupError):
        os.kill(int(said[0].rpartition(" ")[2]), 0)


def test_it_may_end_its_step_when_the_server_stops_sooner_than_that(
    registry: Registry, tmp_path: Path
) -> None:
    """The supervisor asks it when the drain begins, and waits when the engine is gone."""
    said: list[str] = []
    make_job(TuningJobs(registry.catalogue.root))
    mark = tmp_path / "released"
    program = (
        "import signal, sys, time\n"
        f"def end(*_):\n    time.sleep(0.3)\n    open({str(mark)!r}, 'w')\n    sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, end)\nprint('here', flush=True)\ntime.sleep(600)"
    )

    async def play() -> None:
        task = asyncio.create_task(worker(registry, said, program).run())
        await until(lambda: bool(said))
        task.cancel()
        await asyncio.sleep(0.01)
        await _cancelled(task)

    asyncio.run(play())
    assert mark.exists()


def test_a_job_that_has_ended_or_is_paused_starts_nothing(registry: Registry) -> None:
    said: list[str] = []
    jobs = TuningJobs(registry.catalogue.root)
    make_job(jobs).append(JobEvent.CANCELLED, who="alice")
    make_job(jobs).append(JobEvent.PAUSED, who="alice")

    async def play() -> None:
        task = asyncio.create_task(worker(registry, said, "print('here')").run())
        await asyncio.sleep(0.1)
        await ended(task)

    asyncio.run(play())
    assert said == []


def test_by_itself_a_server_trains_where_it_can_and_there_is_a_device() -> None:
    installed = all(find_spec(name) is not None for name in ("torch", "peft", "trl"))
    assert is_wanted("auto", "", accelerator=False) is installed
    assert is_wanted("auto", "cuda:1", accelerator=True) is installed
    assert not is_wanted("auto", "", accelerator=True)
    assert is_wanted("on", "", accelerator=True)
    assert not is_wanted("off", "cpu", accelerator=False)


def test_the_program_that_is_named_is_there_and_takes_what_it_is_told(registry: Registry) -> None:

    command = python("-m", PROGRAM, "--root", str(registry.root), "--once", "--idle", "--device", "cpu")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert "trains on cpu" in done.stderr
