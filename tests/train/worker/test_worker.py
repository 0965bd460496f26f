"""The worker, with the drill's trainer in miniature in place of the real one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from loadtests.drills.tuning import trainer
from registry.errors import NotFound, StorageFailed
from registry.foreign import python
from registry.store import Registry
from registry.tuning.jobs import TuningJob, TuningJobs
from registry.tuning.machine import JobEvent, JobState
from registry.tuning.workers import Workers
from tests.fakes.store import make_registry
from tests.fakes.tuning import DEAD, claim, make_job, queued_job
from train.worker.outcome import TaskKind
from train.worker.worker import CRASHES, TuningWorker, WorkerOptions

DEADLINE_SECONDS = 60


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return make_registry(tmp_path)


@pytest.fixture
def jobs(registry: Registry) -> TuningJobs:
    return TuningJobs(registry.catalogue.root)


@pytest.fixture(autouse=True)
def _short_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(trainer.STEPS, "3")
    monkeypatch.setenv(trainer.STEP_SECONDS, "0.01")


@pytest.fixture
def work(registry: Registry) -> Iterator[Callable[..., TuningWorker]]:
    """Make workers, which are closed at the end."""
    made: list[TuningWorker] = []

    def make(program: Callable[[TuningJob, TaskKind], Sequence[str]] | None = None) -> TuningWorker:
        root = registry.catalogue.root
        options = WorkerOptions("cpu", program or (lambda job, kind: task(registry.root, job, kind)))
        made.append(TuningWorker(root, options))
        return made[-1]

    yield make
    for one in made:
        one.close()


def task(root: Path, job: TuningJob, kind: TaskKind) -> Sequence[str]:
    return python("-m", "loadtests.drills.tuning.trainer", str(root), job.id, kind.value)


def endless(_job: TuningJob, _kind: TaskKind) -> Sequence[str]:
    return python("-c", "import time; time.sleep(600)")


def until(worker: TuningWorker, reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not reached():
        assert time.monotonic() < deadline
        worker.turn()
        time.sleep(0.01)


def test_a_job_is_looked_at_trained_published_and_named(
    work: Callable[..., TuningWorker], jobs: TuningJobs, registry: Registry
) -> None:
    job = make_job(jobs)
    work().run(lambda: False, once=True)
    assert [entry.event for entry in job.log()] == ["created", "claimed", "validated", "claimed", "succeeded"]
    facts: Mapping[str, Any] = job.last().facts
    assert facts["fine_tuned_model"] == job.request.tuned_name
    version = registry.version(job.request.adapter, 1)
    assert (facts["version"], facts["digest"]) == (1, version.digest)
    assert registry.catalogue.tuned.find(job.request.tuned_name).target == version.name
    (result,) = facts["result_files"]
    assert registry.catalogue.files.info(result).who == job.request.who
    csv = registry.catalogue.files.content(result).read_text().splitlines()
    assert csv[0] == "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy"
    assert csv[1:] == ["1,1.00000,,,", "2,0.50000,,,", "3,0.33333,,,"]
    assert sorted(path.name for path in job.folder.iterdir()) == [
        "log", "metrics.jsonl", "outcome.json", "request.json", "worker.log"
    ]  # fmt: skip
    assert Workers(registry.catalogue.root).all() == []


def test_a_paused_job_stops_with_a_checkpoint_and_goes_on_from_it(
    work: Callable[..., TuningWorker], jobs: TuningJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(trainer.STEPS, "1000")
    job, worker = queued_job(jobs), work()
    until(worker, (job.folder / "checkpoints" / "2").exists)
    job.append(JobEvent.PAUSED, who="alice")
    until(worker, lambda: worker.idle)
    assert (job.last().state, job.last().worker) == (JobState.PAUSED, None)
    kept = len(list((job.folder / "checkpoints").iterdir()))
    monkeypatch.setenv(trainer.STEPS, str(kept + 1))
    job.append(JobEvent.RESUMED, who="alice")
    until(worker, lambda: job.last().state.final)
    assert job.last().state is JobState.SUCCEEDED
    assert (job.folder / "metrics.jsonl").read_text().count("\n") == kept + 1


def test_a_cancelled_job_ends_at_once_and_leaves_nothing(
    work: Callable[..., TuningWorker], jobs: TuningJobs
) -> None:
    job, worker = queued_job(jobs), work(endless)
    until(worker, lambda: not worker.idle)
    (job.folder / "checkpoints").mkdir()
    job.append(JobEvent.CANCELLED, who="alice")
    worker.turn()
    assert worker.idle
    assert not (job.folder / "checkpoints").exists()
    assert job.last().event is JobEvent.CANCELLED


def test_a_job_that_is_cancelled_while_it_is_published_gives_its_name_back(
    work: Callable[..., TuningWorker], jobs: TuningJobs, registry: Registry
) -> None:
    job, worker = queued_job(jobs), work()
    until(worker, lambda: not worker.idle)
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not (job.folder / "outcome.json").exists():  # published, and its worker has not looked yet
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert registry.catalogue.tuned.find(job.request.tuned_name)
    job.append(JobEvent.CANCELLED, who="alice")
    until(worker, lambda: worker.idle)
    assert job.last().event is JobEvent.CANCELLED
    with pytest.raises(NotFound):
        registry.catalogue.tuned.find(job.request.tuned_name)


def test_a_job_whose_worker_is_dead_is_taken_over(
    work: Callable[..., TuningWorker], jobs: TuningJobs
) -> None:
    job = queued_job(jobs)
    claim(job, "gone", DEAD)
    work().run(lambda: False, once=True)
    assert [entry.event for entry in job.log()][-3:] == ["claimed", "claimed", "succeeded"]


def test_a_worker_that_lost_its_claim_ends_its_task_and_leaves_the_job_alone(
    work: Callable[..., TuningWorker], jobs: TuningJobs
) -> None:
    job, worker = queued_job(jobs), work(endless)
    until(worker, lambda: not worker.idle)
    claim(job, "other")
    worker.turn()
    assert worker.idle
    assert (job.last().worker, job.last().event) == ("other", JobEvent.CLAIMED)


def test_a_task_that_dies_without_a_word_is_begun_again_and_fails_at_last(
    work: Callable[..., TuningWorker], jobs: TuningJobs
) -> None:
    job = queued_job(jobs)
    worker = work(lambda _job, _kind: python("-c", "import os; os.kill(os.getpid(), 9)"))
    until(worker, lambda: job.last().state.final)
    released = [entry for entry in job.log() if entry.event is JobEvent.RELEASED]
    assert len(released) == CRASHES - 1
    error = job.last().facts["error"]
    assert isinstance(error, dict)
    assert error["code"] == "server_error"
    assert "-9" in str(error["message"])


def test_a_worker_that_ends_lets_go_of_what_it_has_in_hand(
    work: Callable[..., TuningWorker], jobs: TuningJobs, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(trainer.STEPS, "1000")
    job, worker = queued_job(jobs), work()
    until(worker, (job.folder / "checkpoints" / "1").exists)
    worker.close()
    last = job.last()
    assert (last.event, last.state, last.worker) == (JobEvent.RELEASED, JobState.QUEUED, None)
    assert Workers(registry.catalogue.root).all() == []


def test_a_device_is_used_by_one_training_and_files_are_looked_at_beside_it(
    work: Callable[..., TuningWorker], jobs: TuningJobs
) -> None:
    first, second, new = queued_job(jobs, created=1), queued_job(jobs, created=2), make_job(jobs)
    one, other = work(endless), work()
    one.turn()
    assert first.last().state is JobState.RUNNING
    assert new.last().worker == one.id
    other.turn()
    assert second.last().state is JobState.QUEUED
    one.close()
    until(other, lambda: second.last().state.final)
    assert second.last().state is JobState.SUCCEEDED


def test_a_worker_that_is_killed_takes_its_task_with_it(
    jobs: TuningJobs, registry: Registry, monkeypatch: pytest.MonkeyPatch, work: Callable[..., TuningWorker]
) -> None:
    monkeypatch.setenv(trainer.STEPS, "100000")
    job = queued_job(jobs)
    command = [sys.executable, "-P", "-m", "loadtests.drills.tuning.worker", str(registry.root), "cpu"]
    process = subprocess.Popen(command)
    try:
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not (job.folder / "checkpoints" / "2").exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    kept = len(list((job.folder / "checkpoints").iterdir()))
    monkeypatch.setenv(trainer.STEPS, str(kept + 5))
    work().run(lambda: False, once=True)
    assert job.last().state is JobState.SUCCEEDED
    steps = (job.folder / "metrics.jsonl").read_text().count("\n")
    assert steps <= kept + 6


def test_a_task_that_cannot_be_begun_leaves_the_job_to_others(
    work: Callable[..., TuningWorker], jobs: TuningJobs
) -> None:
    job = queued_job(jobs)
    worker = work(lambda _job, _kind: ["/nowhere/python"])
    with pytest.raises(StorageFailed, match="cannot be begun"):
        worker.turn()
    assert job.last().worker == worker.id
    job.append(JobEvent.PAUSED, who="alice")
    worker.turn()
    assert (job.last().event, job.last().worker) == (JobEvent.RELEASED, None)


def test_what_a_killed_worker_left_of_a_job_that_ended_is_cleared_up(
    work: Callable[..., TuningWorker], jobs: TuningJobs, registry: Registry
) -> None:
    job = queued_job(jobs)
    claim(job, "gone", DEAD)
    (job.folder / "data").mkdir()
    job.append(JobEvent.CANCELLED, who="alice")
    worker = work()
    worker.turn()
    assert not (job.folder / "data").exists()
