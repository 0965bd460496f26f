"""What the drill measured, from the files alone: lost, published twice, stuck, how long the keys waited."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from loadtests.drills.tuning.killing import Kill
from registry.store import Registry
from registry.tuning.jobs import TuningJob, TuningJobs
from registry.tuning.machine import JobState
from registry.tuning.queue import began_training

LONGEST_STUCK_SECONDS = 10.0
LARGEST_RATIO = 2.0


@dataclass(frozen=True, slots=True)
class TuningFigures:
    """Counts over all jobs; seconds where the name says so."""

    jobs: int
    kills: int
    killed_in_hand: int
    lost: int
    published_twice: int
    stuck: int
    longest_takeover_seconds: float
    longest_wait_seconds: dict[str, float]
    wait_ratio: float
    most_claims: int
    seconds: float

    @property
    def passed(self) -> bool:
        """Tell whether every bar was reached."""
        return not (self.lost or self.published_twice or self.stuck) and self.wait_ratio <= LARGEST_RATIO


def measure(registry: Registry, kills: Sequence[Kill], seconds: float) -> TuningFigures:
    """Read what became of the jobs."""
    jobs = TuningJobs(registry.catalogue.root).all()
    takeovers = [delay for kill in kills for delay in _takeovers(jobs, kill)]
    waits: dict[str, float] = {}
    for job in jobs:
        began, who = began_training(job), job.request.who
        waits[who] = max(waits.get(who, 0.0), (began or float("inf")) - job.log()[0].at)
    claims = [sum(entry.event == "claimed" for entry in job.log()) for job in jobs]
    return TuningFigures(
        jobs=len(jobs),
        kills=len(kills),
        killed_in_hand=sum(len(kill.jobs) for kill in kills),
        lost=sum(not _is_whole(registry, job) for job in jobs),
        published_twice=sum(_versions(registry, job) > 1 for job in jobs),
        stuck=sum(delay > LONGEST_STUCK_SECONDS for delay in takeovers),
        longest_takeover_seconds=round(max(takeovers, default=0.0), 2),
        longest_wait_seconds={who: round(wait, 1) for who, wait in sorted(waits.items())},
        wait_ratio=round(max(waits.values()) / min(waits.values()), 3),
        most_claims=max(claims),
        seconds=round(seconds, 1),
    )


def _takeovers(jobs: Sequence[TuningJob], kill: Kill) -> list[float]:
    """Return for each job that the killed worker had in hand after how long something happened to it."""
    found = []
    for job in jobs:
        seq = kill.jobs.get(job.id)
        if seq is not None:
            later = [entry.at for entry in job.log() if entry.seq > seq]
            found.append(min(later, default=float("inf")) - kill.at)
    return found


def _is_whole(registry: Registry, job: TuningJob) -> bool:
    """Tell whether a job has succeeded and its name leads to the version that it says, as published."""
    last = job.last()
    if last.state is not JobState.SUCCEEDED:
        return False
    model = registry.catalogue.tuned.find(job.request.tuned_name)
    version = registry.version(model.adapter, model.version)
    registry.verify_version(version)
    return version.digest == model.digest == last.facts["digest"]


def _versions(registry: Registry, job: TuningJob) -> int:
    adapter = job.request.adapter
    return len(registry.versions(adapter)) if adapter in registry.adapters() else 0
