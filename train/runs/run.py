"""A training run from its config to its version: check, train, publish.

Owns the order of the steps and what is left behind: until `publish` there is no version, only the job's
record and the checkpoints that it can go on from.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from registry.changes.publish import refuse_base_name
from registry.errors import Conflict
from registry.records import Published
from registry.storage import files
from train.config import TrainConfig
from train.epoch.duration import duration_of
from train.epoch.holdout import read_files
from train.epoch.mixture import mix
from train.jobs.store import REWARD, Job
from train.loop.arguments import check_precision
from train.loop.evaluator import make_best
from train.loop.result import TrainingResult
from train.loop.trainer import train
from train.methods import method_of
from train.model.recorded_base import check_base
from train.model.shape import check_shape
from train.model.starting import find_start
from train.nearest.search import CandidateRows, check_nearest, start_nearest, write_choice
from train.prepared import PreparedRun
from train.process import launching
from train.runs.lineage import lineage
from train.runs.session import JobRun, RunOptions, open_job
from train.settings.data import EVAL
from train.settings.starting import NEAREST

if TYPE_CHECKING:
    from registry.store import Registry


@dataclass(frozen=True, slots=True)
class Finished:
    """What a run gave: its measurements, its job, and the version if it became one."""

    result: TrainingResult
    published: Published | None
    job: Job


def prepare(
    config: TrainConfig, registry: Registry, *, resume: bool = False, processes: int | None = None
) -> PreparedRun:
    """Check all that can be checked before the first step, and render the rows.

    `from: nearest` is decided here: the base is loaded and measured, unless `resume` finds the choice of an
    interrupted run. `processes` is how many the run has, where it is not this one.

    Raises:
        UsageError: a row, a module name or the rank cannot be trained or served.
        NotFound: the base's folder, or the version that the run goes on from, is gone.
        Quarantined: the version that the run goes on from may not be used.
        Conflict: the base's folder holds another model than `wardrobe init` recorded, or the adapter would
            bear the base's name.
    """
    from train.model.loading import load_tokenizer

    check_base(registry.base)
    refuse_base_name(registry.catalogue, config.name)
    method = method_of(config)
    config, parent = find_start(method.complete(config, registry.root), registry)
    check_precision(config)
    make_best(config)
    check_shape(config, registry.base, registry.limits.max_lora_rank)
    method.check(config)
    if config.start == NEAREST:
        check_nearest(config)
    read, share = read_files(config, method.read, load_tokenizer(registry.base.path))
    mixture = mix(read, config.data, config.seed)
    held_out = read[EVAL].items if EVAL in read else ()
    choice = None
    if config.start == NEAREST:
        rows = CandidateRows(held_out, mixture.items)
        config, parent, choice = start_nearest(config, registry, rows, resume=resume)
    epoch = method.epoch(mixture.items, config)
    return PreparedRun(
        config=config,
        root=registry.root,
        base=registry.base,
        files=read,
        mixture=mixture,
        duration=duration_of(config, epoch, processes or launching.processes()),
        held_out=held_out,
        parent=parent,
        share=share,
        choice=choice,
    )


def train_and_publish(run: PreparedRun, registry: Registry, options: RunOptions) -> Finished:
    """Train as a job and register the result as the adapter's next version.

    A reward model becomes no version: it stays in the job, and rloo and grpo name it by the job's id.

    Raises: Stopped: after a step, with a checkpoint; WardrobeError: the job failed.
    """

    def keep(job: JobRun, trained: Path, result: TrainingResult) -> Published | None:
        if method_of(run.config).servable:
            config, facts = run.config, lineage(run, job.sources, result, job.job.id)
            published = registry.publish(
                config.name, trained, alias=config.alias, note=config.note, who=options.who, lineage=facts
            )
            job.succeed(result, published, None)
            return published
        files.remove_tree(job.job.folder / REWARD)
        files.move(trained, job.job.folder / REWARD)
        job.succeed(result, None, REWARD)
        return None

    return train_as_job(run, options, keep)


def train_to_folder(run: PreparedRun, target: Path, options: RunOptions) -> Finished:
    """Train as a job and leave the adapter in the new folder `target`, without registering it.

    Raises: Conflict: `target` exists; Stopped; WardrobeError.
    """
    if target.exists():
        raise Conflict(str(target), "exists", "name a new folder", param="out")

    def keep(job: JobRun, trained: Path, result: TrainingResult) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(trained, target)
        job.succeed(result, None, str(target.resolve()))

    return train_as_job(run, options, keep)


def train_as_job(
    run: PreparedRun,
    options: RunOptions,
    keep: Callable[[JobRun, Path, TrainingResult], Published | None],
) -> Finished:
    """Train as a job; `keep` gives what was trained its place, in the first process of the run alone.

    Raises: Stopped; WardrobeError; whatever `keep` raises.
    """
    with open_job(run, options) as job:
        if run.choice is not None and not job.follows:
            write_choice(job.job, run.choice)
        trained = job.folder / "adapter"
        result = train(run, job.attempt(), trained)
        options.watcher.publishing()
        return Finished(result, None if job.follows else keep(job, trained, result), job.job)
