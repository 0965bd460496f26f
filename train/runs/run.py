"""A training run from its config to its version: check, train, publish.

Owns the order of the steps and what is left behind: until `publish` there is no version, only the job's
record and the checkpoints that it can go on from.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from registry.changes.publish import refuse_base_name
from registry.errors import Conflict
from registry.records import BaseModelInfo, Published, Version
from registry.storage import files
from train.config import TrainConfig
from train.epoch.duration import Duration, duration_of
from train.epoch.holdout import HeldOut, read_files
from train.epoch.items import ItemCounts, ItemFile, TrainingItem
from train.epoch.mixture import Mixture, mix
from train.jobs.store import REWARD, Job
from train.loop.arguments import check_precision
from train.loop.evaluator import make_race
from train.methods import method_of
from train.model.recorded_base import check_base
from train.model.shape import check_shape
from train.model.targets import left_out_sentence
from train.nearest.choice import NearestVersion
from train.nearest.search import CandidateRows, check_nearest, start_nearest, write_choice
from train.process import launching
from train.runs.publish import DataSource, Origin, describe_source, lineage, publish
from train.runs.session import JobRun, RunOptions, open_work, reward_folder
from train.runs.starting import find_start
from train.settings.data import EVAL
from train.settings.starting import NEAREST

if TYPE_CHECKING:
    from registry.store import Registry
    from train.loop.watching import RunWatcher, TrainingResult


@dataclass(frozen=True, slots=True)
class Prepared:
    """A run that is ready to start: every row rendered, every limit checked.

    `files` are the data files by the label of their source; `eval` and `replay` are such labels too.
    `mixture` is one epoch, `duration` says how many steps and passes the run makes; `parent` is the version
    that it goes on with, `choice` how `from: nearest` found it; `share` says which rows are held out
    where that is a share of them.
    """

    config: TrainConfig
    base: BaseModelInfo
    files: Mapping[str, ItemFile[TrainingItem]]
    mixture: Mixture
    duration: Duration
    held_out: tuple[TrainingItem, ...]
    parent: Version | None
    share: HeldOut | None = None
    choice: NearestVersion | None = None

    @property
    def items(self) -> tuple[TrainingItem, ...]:
        """Return the rows of one epoch, in order."""
        return self.mixture.items

    @property
    def start(self) -> Path | None:
        """Return the folder of the version that the run goes on with."""
        return self.parent.path if self.parent else None

    @property
    def reports(self) -> dict[str, ItemCounts]:
        """Return the counts of each data file by its label."""
        return {label: file.report for label, file in self.files.items()}

    @property
    def warnings(self) -> tuple[str, ...]:
        """Return what a person should know of the adapter's shape before the run starts."""
        told = left_out_sentence(self.config.lora, self.base.modules)
        return () if told is None else (told,)

    def sources(self) -> dict[str, DataSource]:
        """Return each data file as it is now, with its hash, by its label."""
        share = self.share
        found = {
            label: describe_source(place, self.reports[label], share.facts(label) if share else {})
            for label, place in self.config.data.files.items()
        }
        if share is not None:
            found[EVAL] = DataSource(None, share.sha256(), self.reports[EVAL], share.facts(EVAL))
        return found


@dataclass(frozen=True, slots=True)
class Finished:
    """What a run gave: its measurements, its job, and the version if it became one."""

    result: TrainingResult
    published: Published | None
    job: Job


def prepare(
    config: TrainConfig, registry: Registry, *, resume: bool = False, processes: int | None = None
) -> Prepared:
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
    config, parent = find_start(_with_reward(config, registry.root), registry)
    check_precision(config)
    make_race(config)
    check_shape(config, registry.base, registry.limits.max_lora_rank)
    method = method_of(config)
    method.check(config)
    if config.start == NEAREST:
        check_nearest(config)
    tokenizer = load_tokenizer(registry.base.path)
    files, share = read_files(config, method, tokenizer)
    mixture = mix(files, config.data, config.seed)
    held_out = files[EVAL].items if EVAL in files else ()
    choice = None
    if config.start == NEAREST:
        rows = CandidateRows(held_out, mixture.items)
        config, parent, choice = start_nearest(config, registry, rows, resume=resume)
    return Prepared(
        config=config,
        base=registry.base,
        files=files,
        mixture=mixture,
        duration=duration_of(config, mixture.items, processes or launching.processes()),
        held_out=held_out,
        parent=parent,
        share=share,
        choice=choice,
    )


def train_and_publish(
    prepared: Prepared, registry: Registry, progress: RunWatcher, wish: RunOptions
) -> Finished:
    """Train as a job and register the result as the adapter's next version.

    A reward model becomes no version: it stays in the job, and rloo and grpo name it by the job's id.

    Raises: Stopped: after a step, with a checkpoint; WardrobeError: the job failed.
    """
    sources = prepared.sources()
    with open_work(registry.root, prepared.config, prepared.base, sources, prepared.parent, wish) as work:
        _keep_choice(prepared, work)
        out = work.folder / "adapter"
        result = _train(prepared, work, out, progress, registry.root)
        progress.publishing()
        if work.follows:
            return Finished(result, None, work.job)
        if not method_of(prepared.config).servable:
            files.remove_tree(work.job.folder / REWARD)
            files.move(out, work.job.folder / REWARD)
            work.succeed(result, None, REWARD)
            return Finished(result, None, work.job)
        origin = Origin(prepared.base, sources, prepared.mixture.shares, prepared.parent, prepared.choice)
        facts = lineage(prepared.config, origin, result, work.job.id)
        published = publish(registry, prepared.config, out, facts, who=wish.who)
        work.succeed(result, published, None)
        return Finished(result, published, work.job)


def train_to_folder(
    prepared: Prepared, registry: Registry, target: Path, progress: RunWatcher, wish: RunOptions
) -> Finished:
    """Train as a job and leave the adapter in the new folder `target`, without registering it.

    Raises: Conflict: `target` exists; Stopped; WardrobeError.
    """
    if target.exists():
        raise Conflict(str(target), "exists", "name a new folder", param="out")
    sources = prepared.sources()
    with open_work(registry.root, prepared.config, prepared.base, sources, prepared.parent, wish) as work:
        _keep_choice(prepared, work)
        out = work.folder / "adapter"
        result = _train(prepared, work, out, progress, registry.root)
        progress.publishing()
        if work.follows:
            return Finished(result, None, work.job)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(out, target)
        work.succeed(result, None, str(target.resolve()))
        return Finished(result, None, work.job)


def _keep_choice(prepared: Prepared, work: JobRun) -> None:
    if prepared.choice is not None and not work.follows:
        write_choice(work.job, prepared.choice)


def _train(prepared: Prepared, work: JobRun, out: Path, progress: RunWatcher, root: Path) -> TrainingResult:
    from train.loop.trainer import TrainingTask, run_task

    config, start = prepared.config, prepared.start
    task = TrainingTask(config, prepared.base.path, prepared.items, prepared.held_out, start, root)
    return run_task(task, work.folder, out, progress, work.attempt())


def _with_reward(config: TrainConfig, root: Path) -> TrainConfig:
    reward = getattr(config.method, "reward", None)
    if reward is None or reward.model is None:
        return config
    found = reward.model_copy(update={"model": reward_folder(root, reward.model)})
    return config.model_copy(update={"method": config.method.model_copy(update={"reward": found})})
