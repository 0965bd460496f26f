"""One job trained on the local base, registered, and judged: each step once, whatever was killed in between.

Owns the order. Invariants: the version is nobody's `stable` and has no name before it is judged; a run that
was killed goes on from its newest checkpoint, and one that was killed behind its publication is found; an
interrupted judging keeps its answers.
"""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from registry.records import Published, Version
from registry.validation.requirements import LINEAGE
from train.config import load_config
from train.loop.result import TrainingResult
from train.migrating.folder import MigratedJob
from train.migrating.judging import judge
from train.prepared import DataSource, PreparedRun
from train.process.interruption import Interruption
from train.runs.lineage import lineage
from train.runs.progress import RunProgress
from train.runs.run import prepare, train_as_job
from train.runs.session import JobRun, RunOptions
from train.worker.checking import with_checkpoints

if TYPE_CHECKING:
    from collections.abc import Mapping

    from registry.store import Registry

VERSION, VERDICT = "version", "verdict"
SAVE_SECONDS = 20.0
"""A kill loses so much of a training at most, and a step: a tenth of one may be an hour."""
_LINES = 10


def train_and_judge(
    job: MigratedJob, registry: Registry, old: str, margin: float, interruption: Interruption, who: str
) -> None:
    """Leave the job's version and its verdict in its folder; tell on stderr how far it is.

    Raises: Stopped: after a step, with a checkpoint; KeyboardInterrupt: later; WardrobeError.
    """
    version = job.record(VERSION)
    if version is None:
        interruption.defer(lambda: None)  # from here to the version's record a signal only waits
        version = _trained(job, registry, interruption, who)
        job.keep(VERSION, version)
        interruption.undefer()
    if job.record(VERDICT) is None:
        job.keep(VERDICT, _judged(job, registry, version, old, margin))


def _trained(job: MigratedJob, registry: Registry, interruption: Interruption, who: str) -> dict[str, Any]:
    run = with_checkpoints(prepare(load_config(job.config), registry))
    name = f"migrate-{job.id}"
    version = _published_before(run, registry, name)
    if version is None:
        version = _train(run, registry, interruption, who, name)
    return {"adapter": version.adapter, "version": version.number, "digest": version.digest}


def _train(run: PreparedRun, registry: Registry, interruption: Interruption, who: str, name: str) -> Version:
    def keep(record: JobRun, trained: Path, result: TrainingResult) -> Published:
        facts = lineage(run, record.sources, result, name)
        published = registry.publish(
            run.config.name, trained, who=who, no_stable=True, note=run.config.note, lineage=facts
        )
        record.succeed(result, published, None)
        return published

    with RunProgress(run.config.name, lambda: None) as watcher:
        options = RunOptions(
            who=who,
            watcher=watcher,
            stopping=lambda: interruption.requested,
            notice=_tell,
            job=name,
            save_seconds=SAVE_SECONDS,
        )
        published = train_as_job(run, options, keep).published
    assert published is not None
    return published.version


def _published_before(run: PreparedRun, registry: Registry, name: str) -> Version | None:
    """Return the version that this run made already, by its lineage: a kill may fall behind `publish`."""
    if run.config.name not in registry.adapters():
        return None
    data = _hashes(run.sources())
    for version in registry.versions(run.config.name):
        for told in registry.attestations(version.adapter, version.number, LINEAGE):
            body: dict[str, Any] = dict(told.body)
            same = body.get("config_sha256") == run.config.sha256 and body.get("job", {}).get("id") == name
            if same and {key: one["sha256"] for key, one in body["data"].items()} == data:
                return version
    return None


def _hashes(sources: Mapping[str, DataSource]) -> dict[str, str]:
    return {name: source.sha256 for name, source in sources.items()}


def _judged(
    job: MigratedJob, registry: Registry, version: dict[str, Any], old: str, margin: float
) -> dict[str, Any]:
    from train.evaluation.models.roster import Roster

    with closing(Roster(registry, None, offline=True)) as roster:
        name = f"{version['adapter']}@{version['version']}"
        return judge(
            job, old, roster.model(name), str(version["digest"]), margin, roster.model,
            lambda done, of: _tell_judged(name, done, of),
        )  # fmt: skip


def _tell_judged(name: str, done: int, of: int) -> None:
    if done == of or done % max(1, of // _LINES) == 0:
        _tell(f"{name}: answered {done} of {of} held-out questions")


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - the migration tells it on
