"""`train jobs|show|cancel|pause|resume`: one list of runs and of jobs asked for over the API."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from registry.cli.main import run as wardrobe
from registry.store import Registry
from registry.tuning.jobs import TuningJobs
from registry.tuning.machine import JobEvent, JobState
from tests.fakes.store import make_registry
from tests.fakes.tuning import claim, queued_job
from tests.train.test_jobs import make_job
from train.jobs.records import RunState
from train.jobs.store import Jobs


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return make_registry(tmp_path)


def said(capsys: pytest.CaptureFixture[str], registry: Registry, *words: str, code: int = 0) -> str:
    arguments: Sequence[str] = ("--root", str(registry.root), "train", *words)
    assert wardrobe(arguments) == code
    captured = capsys.readouterr()
    return captured.out if code == 0 else captured.err


def test_runs_and_jobs_of_the_api_are_one_list(
    registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_job(registry.root)
    run.begin()
    run.end(RunState.SUCCEEDED, version=3)
    job = queued_job(TuningJobs(registry.catalogue.root), created=1)
    told = said(capsys, registry, "jobs")
    assert [line.split()[0] for line in told.splitlines()[1:]] == [run.id, job.id]
    assert "queued" in told
    found = json.loads(said(capsys, registry, "jobs", "--json"))
    assert [(one["id"], one["asked"] is None, one["status"] is None) for one in found] == [
        (run.id, True, False),
        (job.id, False, True),
    ]
    assert job.request.tuned_name in said(capsys, registry, "show", job.id[-6:])
    assert "has not begun to train" in said(capsys, registry, "show", job.id, "--html", "x.html", code=2)


def test_a_job_of_the_api_is_paused_resumed_and_cancelled_and_its_log_has_who_did_it(
    registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    job = queued_job(TuningJobs(registry.catalogue.root))
    claim(job)
    assert "is paused, as soon as its worker lets go" in said(capsys, registry, "pause", job.id)
    assert "is paused, so it cannot be paused" in said(capsys, registry, "pause", job.id, code=2)
    assert "is queued" in said(capsys, registry, "resume", job.id)
    assert "is cancelled" in said(capsys, registry, "cancel", job.id)
    assert "nothing can follow" in said(capsys, registry, "cancel", job.id, code=2)
    assert [entry.event for entry in job.log()][-3:] == [
        JobEvent.PAUSED, JobEvent.RESUMED, JobEvent.CANCELLED
    ]  # fmt: skip
    assert job.last().state is JobState.CANCELLED
    assert job.last().who not in {"", "alice"}


@pytest.mark.parametrize(("word", "signals"), [("pause", 1), ("cancel", 2)])
def test_a_run_of_train_run_is_stopped_as_its_own_ctrl_c_would_stop_it(
    word: str, signals: int, registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    program = (
        "import os, signal, sys, time\n"
        "from pathlib import Path\n"
        "from train.jobs.store import Jobs\n"
        "seen = []\n"
        "signal.signal(signal.SIGTERM, lambda *_: seen.append(1))\n"
        "job = Jobs(Path(sys.argv[1])).all()[0]\n"
        "job.begin()\n"
        "print('begun', flush=True)\n"
        "while len(seen) < int(sys.argv[2]): time.sleep(0.01)\n"
        "os._exit(7)\n"
    )
    run = make_job(registry.root)
    run.begin()
    command = [sys.executable, "-P", "-c", program, str(registry.root), str(signals)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    assert "--resume" in said(capsys, registry, word, run.id)
    assert process.wait(timeout=30) == 7
    process.stdout.close()
    run.end(RunState.SUCCEEDED)


def test_a_run_that_does_not_run_cannot_be_stopped_nor_resumed(
    registry: Registry, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_job(registry.root)
    run.begin()
    run.end(RunState.FAILED, error="it broke")
    assert Jobs(registry.root).find(run.id)
    assert "is failed" in said(capsys, registry, "pause", run.id, code=2)
    assert "--resume" in said(capsys, registry, "resume", run.id, code=2)


def test_an_unknown_job_is_named(registry: Registry, capsys: pytest.CaptureFixture[str]) -> None:
    assert "does not exist" in said(capsys, registry, "cancel", "nonsense", code=1)
