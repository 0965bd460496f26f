from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from registry.errors import ClaimLost, CorruptStore, JobRefused, NotFound, Occupied
from registry.storage.root import Root
from registry.store import Registry
from registry.tuning.jobs import TuningJobs
from registry.tuning.machine import JobEvent, JobState
from registry.tuning.records import is_id, new_id
from registry.tuning.workers import WorkerBeat, Workers
from tests.contracts.crashing import kill_at, together
from tests.fakes.store import leftovers, without_links
from tests.fakes.tuning import DEAD, claim, make_job, queued_job, tuning_request

TRAINABLE = (JobState.QUEUED, JobState.RUNNING)


@pytest.fixture
def root(registry: Registry) -> Root:
    return registry.catalogue.root


@pytest.fixture
def jobs(root: Root) -> TuningJobs:
    return TuningJobs(root)


def test_a_job_reads_back_as_it_was_asked(root: Root, jobs: TuningJobs) -> None:
    asked = tuning_request(
        suffix="hm", metadata={"team": "a"}, extras={"goal": {"at_least": 0.5}}, start="support@3",
        integrations=({"type": "wandb", "wandb": {"project": "x"}},),
    )  # fmt: skip
    made = jobs.create(asked)
    found = TuningJobs(root).find(made.id)
    assert found.request == asked
    (entry,) = found.log()
    assert (entry.seq, entry.event, entry.state, entry.worker) == (
        1,
        JobEvent.CREATED,
        JobState.VALIDATING,
        None,
    )
    assert asked.id in entry.message


def test_ids_are_openais_and_nothing_else_is_a_name_on_the_disk(jobs: TuningJobs) -> None:
    assert is_id(new_id())
    for other in ("ftjob-", "ftjob-../../../../etc/passwd0", "20261130-230218-abcdef", "", f"{new_id()}x"):
        assert not is_id(other)
        with pytest.raises(NotFound):
            jobs.find(other)
    with pytest.raises(ValueError, match="not a job's id"):
        make_job(jobs, id="x")
    with pytest.raises(NotFound):
        jobs.find(new_id())


def test_an_id_is_given_once(jobs: TuningJobs, root: Root) -> None:
    made = make_job(jobs)
    with pytest.raises(Occupied):
        jobs.create(tuning_request(id=made.id, who="mallory"))
    assert jobs.find(made.id).request.who == "alice"
    assert list(leftovers(root.path)) == []


def test_jobs_are_listed_newest_first_and_a_damaged_one_hides_no_other(jobs: TuningJobs, root: Root) -> None:
    first, second, broken = (make_job(jobs, created=at) for at in (1, 2, 3))
    (root.path / "jobs" / "20261130-000000-abcdef").mkdir()
    (broken.folder / "log" / "1.json").unlink()
    listed = TuningJobs(root)
    assert [job.id for job in listed.all()] == [second.id, first.id]
    assert list(listed.problems) == [broken.id]
    assert [job.id for job in jobs.in_state(JobState.VALIDATING)] == [second.id, first.id]


def test_a_damaged_entry_is_named(jobs: TuningJobs, root: Root) -> None:
    job = queued_job(jobs)
    path = job.folder / "log" / "3.json"
    path.chmod(0o644)
    path.write_text(path.read_text().replace('"queued"', '"elsewhere"'))
    with pytest.raises(CorruptStore, match="elsewhere"):
        TuningJobs(root).find(job.id).last()


def test_a_pause_is_true_at_once_and_the_job_stays_in_hand_until_the_worker_lets_go(
    jobs: TuningJobs, root: Root
) -> None:
    job, workers = queued_job(jobs), Workers(root)
    claim(job)
    job.append(JobEvent.PAUSED, who="alice")
    assert (job.last().state, job.last().worker) == (JobState.PAUSED, "one")
    job.append(JobEvent.RESUMED, who="alice")
    assert workers.claimable(job, *TRAINABLE) is None
    job.append(JobEvent.RELEASED, who="one", worker="one")
    assert workers.claimable(job, *TRAINABLE) == job.last()
    assert job.last().state is JobState.QUEUED


def test_a_job_of_a_dead_worker_is_taken_over_and_what_the_dead_one_says_does_not_count(
    jobs: TuningJobs, root: Root
) -> None:
    job, workers = queued_job(jobs), Workers(root)
    claim(job, "gone", DEAD)
    assert workers.claimable(job, *TRAINABLE) is not None
    claim(job, "two")
    assert workers.claimable(job, *TRAINABLE) is None
    for event in (JobEvent.SUCCEEDED, JobEvent.FAILED, JobEvent.RELEASED):
        with pytest.raises(ClaimLost, match="worker two"):
            job.append(event, who="gone", worker="gone")
    assert job.append(JobEvent.SUCCEEDED, who="two", worker="two").state is JobState.SUCCEEDED


def test_only_who_has_a_job_in_hand_may_end_it(jobs: TuningJobs) -> None:
    job = queued_job(jobs)
    for event in (JobEvent.SUCCEEDED, JobEvent.RELEASED):
        with pytest.raises(ClaimLost, match="nobody"):
            job.append(event, who="two", worker="two")
    job.append(JobEvent.CANCELLED, who="alice")
    with pytest.raises(JobRefused, match="is cancelled, so it cannot be succeeded"):
        job.append(JobEvent.SUCCEEDED, who="two", worker="two")


def test_a_claim_for_a_state_that_went_on_is_lost(jobs: TuningJobs) -> None:
    job = queued_job(jobs)
    seen = job.last().seq
    job.append(JobEvent.PAUSED, who="alice")
    with pytest.raises(ClaimLost, match="paused"):
        job.append(JobEvent.CLAIMED, who="one", worker="one", expected_seq=seen)


def test_a_worker_elsewhere_is_dead_after_ten_seconds_of_silence(jobs: TuningJobs, root: Root) -> None:
    now = [0.0]
    workers = Workers(root, lambda: now[0])
    job = queued_job(jobs)
    claim(job, "far", DEAD)
    workers.beat(WorkerBeat("far", DEAD, "cuda:0", job.id, 0.0))
    assert workers.holds(job, job.last())
    now[0] = 9.0
    assert workers.holds(job, job.last())
    workers.beat(WorkerBeat("far", DEAD, "cuda:0", job.id, 9.0))
    now[0] = 18.0
    assert workers.holds(job, job.last())
    now[0] = 29.0
    assert not workers.holds(job, job.last())
    assert [beat.job for beat in workers.all()] == [job.id]


def test_a_worker_that_is_dead_for_a_day_is_forgotten(root: Root) -> None:
    now = [1_000_000.0]
    workers = Workers(root, lambda: now[0])
    workers.beat(WorkerBeat("old", DEAD, "cpu", None, 1_000_000.0))
    (root.path / "workers" / "odd.json").write_text("{}")
    workers.tidy()
    assert [beat.id for beat in workers.all()] == ["old"]
    now[0] += 86_401.0
    workers.tidy()
    workers.tidy()
    assert workers.all() == []


@pytest.mark.parametrize("links", [True, False], ids=["links", "no-links"])
def test_of_many_processes_that_claim_a_job_one_gets_it(
    links: bool, jobs: TuningJobs, tmp_path: Path
) -> None:
    job = queued_job(jobs)
    seen = job.last().seq

    def compete(number: int) -> bool:
        mine = f"worker-{number}"
        try:
            job.append(JobEvent.CLAIMED, who=mine, worker=mine, expected_seq=seen)
        except ClaimLost:
            return False
        return True

    with without_links(not links):
        won = together(6, compete, tmp_path)
    assert won.count(True) == 1
    assert job.last().worker == f"worker-{won.index(True)}"


def test_of_ends_that_race_one_stands_and_every_other_is_told(jobs: TuningJobs, tmp_path: Path) -> None:
    job = queued_job(jobs)
    claim(job)
    events = [JobEvent.CANCELLED, JobEvent.SUCCEEDED, JobEvent.PAUSED, JobEvent.FAILED]

    def act(number: int) -> str:
        event = events[number]
        worker = "one" if event in {JobEvent.SUCCEEDED, JobEvent.FAILED} else None
        try:
            return str(job.append(event, who="x", worker=worker).state)
        except JobRefused:
            return "refused"

    told = together(4, act, tmp_path)
    states = [entry.state for entry in job.log()]
    assert [state for state in states if state.final] == [job.last().state]
    assert told.count(str(job.last().state)) == 1
    assert len(states) == 4 + len(told) - told.count("refused")


def _scenarios() -> dict[str, tuple[Callable[[TuningJobs], str], Callable[[TuningJobs, str], object]]]:
    def asked(jobs: TuningJobs) -> str:
        return tuning_request().id

    def create(jobs: TuningJobs, id: str) -> object:  # noqa: A002
        return jobs.create(tuning_request(id=id))

    def waiting(jobs: TuningJobs) -> str:
        return queued_job(jobs).id

    def take(jobs: TuningJobs, id: str) -> object:  # noqa: A002
        return claim(jobs.find(id))

    def stop(jobs: TuningJobs, id: str) -> object:  # noqa: A002
        return jobs.find(id).append(JobEvent.CANCELLED, who="alice")

    return {"create": (asked, create), "claim": (waiting, take), "cancel": (waiting, stop)}


@pytest.mark.parametrize("links", [True, False], ids=["links", "no-links"])
@pytest.mark.parametrize("name", list(_scenarios()))
def test_killed_between_any_two_steps_a_change_is_whole_or_not_there_and_can_be_made_again(
    name: str, links: bool, root: Root
) -> None:
    prepare, act = _scenarios()[name]
    for index in range(40):
        jobs = TuningJobs(root)
        id = prepare(jobs)  # noqa: A001
        before = _seen(jobs, id)
        try:
            kill_at(index, lambda: act(jobs, id), links=links)  # noqa: B023
        except AssertionError:
            assert index >= 3  # it ended before this step: every one was tried
            return
        fresh = TuningJobs(root)
        found = _seen(fresh, id)
        if found == before:
            with without_links(not links):
                act(fresh, id)
        assert _seen(TuningJobs(root), id) == before + 1
        assert fresh.problems == {}
    raise AssertionError("more steps than expected")


def _seen(jobs: TuningJobs, id: str) -> int:  # noqa: A002
    """Return how many entries a reader sees, 0 where there is no job."""
    return len(jobs.find(id).log()) if id in {job.id for job in jobs.all()} else 0
