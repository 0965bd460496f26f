"""One job trained on the local base, registered, and judged: each step once, whatever was killed in between.

Owns the order. Invariants: the version is nobody's `stable` and has no name before it is judged; a run that
was killed goes on from its newest checkpoint; the same config, rows and base give the same version, so a step
that is done twice makes nothing twice.
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.records import Published
from train.config import load_config
from train.loop.result import TrainingResult
from train.migrating.folder import MigratedJob
from train.migrating.judging import judge
from train.process.interruption import Interruption
from train.runs.lineage import lineage
from train.runs.run import prepare, train_as_job
from train.runs.session import JobRun, RunOptions
from train.worker.checking import with_checkpoints
from train.worker.training import TaskWatcher

if TYPE_CHECKING:
    from registry.store import Registry

VERSION, VERDICT = "version", "verdict"


def train_and_judge(
    job: MigratedJob, registry: Registry, old: str, margin: float, interruption: Interruption, who: str
) -> None:
    """Leave the job's version and its verdict in its folder.

    Raises: Stopped: after a step, with a checkpoint; WardrobeError.
    """
    version = job.record(VERSION)
    if version is None:
        version = _train(job, registry, interruption, who)
        job.keep(VERSION, version)
    interruption.hold()
    if job.record(VERDICT) is None:
        job.keep(VERDICT, _judged(job, registry, version, old, margin))


def _train(job: MigratedJob, registry: Registry, interruption: Interruption, who: str) -> dict[str, Any]:
    run = with_checkpoints(prepare(load_config(job.config), registry))
    name = f"migrate-{job.id}"
    options = RunOptions(
        who=who, watcher=TaskWatcher(interruption), stopping=lambda: interruption.requested, job=name
    )
    interruption.defer(lambda: None)

    def keep(record: JobRun, trained: Path, result: TrainingResult) -> Published:
        facts = lineage(run, record.sources, result, name)
        published = registry.publish(
            run.config.name, trained, who=who, no_stable=True, note=run.config.note, lineage=facts
        )
        record.succeed(result, published, None)
        return published

    published = train_as_job(run, options, keep).published
    assert published is not None
    version = published.version
    return {"adapter": version.adapter, "version": version.number, "digest": version.digest}


def _judged(
    job: MigratedJob, registry: Registry, version: dict[str, Any], old: str, margin: float
) -> dict[str, Any]:
    from train.evaluation.models.roster import Roster

    with closing(Roster(registry, None, offline=True)) as roster:
        model = roster.model(f"{version['adapter']}@{version['version']}")
        return judge(job, old, model, str(version["digest"]), margin, roster.model)
