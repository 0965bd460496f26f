from __future__ import annotations

import pytest

from registry.store import Registry
from registry.tuning.jobs import TuningJob, TuningJobs
from registry.tuning.machine import JobEvent
from registry.tuning.queue import TuningQueue
from registry.tuning.workers import Workers
from tests.fakes.tuning import DEAD, claim, make_job, queued_job


@pytest.fixture
def jobs(registry: Registry) -> TuningJobs:
    return TuningJobs(registry.catalogue.root)


@pytest.fixture
def queue(registry: Registry, jobs: TuningJobs) -> TuningQueue:
    return TuningQueue(jobs, Workers(registry.catalogue.root))


def trained_next(queue: TuningQueue) -> TuningJob | None:
    found = queue.to_train()
    return None if found is None else found[0]


def test_files_are_looked_at_oldest_first_and_by_one_worker_each(
    jobs: TuningJobs, queue: TuningQueue
) -> None:
    young, old = make_job(jobs, created=2), make_job(jobs, created=1)
    assert (found := queue.to_validate()) is not None
    assert found == (old, old.last())
    claim(old)
    assert (found := queue.to_validate()) is not None
    assert found[0] is young
    claim(young, "gone", DEAD)
    assert (found := queue.to_validate()) is not None
    assert found[0] is young


def test_what_a_dead_worker_began_comes_before_what_waits(jobs: TuningJobs, queue: TuningQueue) -> None:
    waiting, left = queued_job(jobs, created=1), queued_job(jobs, created=2)
    claim(left, "gone", DEAD)
    assert trained_next(queue) is left
    claim(left)
    assert trained_next(queue) is waiting


def test_keys_take_turns_by_what_the_logs_say(jobs: TuningJobs, queue: TuningQueue) -> None:
    first, second = (queued_job(jobs, created=at, who="alice") for at in (1, 2))
    other = queued_job(jobs, created=3, who="bob")
    assert trained_next(queue) is first
    claim(first)
    assert trained_next(queue) is other
    first.append(JobEvent.SUCCEEDED, who="one", worker="one")
    assert trained_next(queue) is other
    claim(other)
    other.append(JobEvent.SUCCEEDED, who="one", worker="one")
    assert trained_next(queue) is second
    claim(second)
    assert trained_next(queue) is None


def test_a_damaged_log_stops_nobody_else(jobs: TuningJobs, queue: TuningQueue) -> None:
    damaged, fine = queued_job(jobs, created=1), queued_job(jobs, created=2)
    path = damaged.folder / "log" / "4.json"
    path.write_text("{")
    assert trained_next(queue) is fine
