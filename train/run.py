"""A training run from its config to its version: check, train, publish.

Owns the order of the steps and what is left behind: until `publish` nothing is in the root, so an
interrupted or failed run leaves no trace there.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from registry.errors import Conflict, NotFound, UsageError
from registry.records import BaseModel, Published
from train.config import ALL_LINEAR, TrainConfig
from train.items import DataReport, Item, ItemFile
from train.methods import method_of
from train.mixture import mix
from train.publish import describe_source, lineage, publish
from train.settings.data import EVAL

if TYPE_CHECKING:
    from registry.store import Registry
    from train.watching import Progress, TrainingResult


@dataclass(frozen=True, slots=True)
class Prepared:
    """A run that is ready to start: every row rendered, every limit checked.

    `files` are the data files by the label of their source; `eval` and `replay` are such labels too.
    `items` is one epoch of the mixture.
    """

    config: TrainConfig
    base: BaseModel
    files: Mapping[str, ItemFile[Item]]
    items: tuple[Item, ...]
    held_out: tuple[Item, ...]
    start: Path | None

    @property
    def reports(self) -> dict[str, DataReport]:
        """Return the counts of each data file by its label."""
        return {label: file.report for label, file in self.files.items()}


@dataclass(frozen=True, slots=True)
class Finished:
    """What a run gave: its measurements, and the version unless it was kept in a folder."""

    result: TrainingResult
    published: Published | None


def prepare(config: TrainConfig, registry: Registry) -> Prepared:
    """Check all that can be checked before the first step, and render the rows.

    Raises:
        UsageError: a row, a module name or the rank cannot be trained or served.
        NotFound: the base's folder is gone.
        Conflict: the base's folder holds another model than `wardrobe init` recorded.
    """
    from train.modelling import load_tokenizer

    _check_base(registry.base)
    _check_lora(config, registry)
    method = method_of(config)
    method.check(config)
    tokenizer = load_tokenizer(registry.base.path)
    files = {label: method.read(path, tokenizer, config) for label, path in config.data.files.items()}
    return Prepared(
        config=config,
        base=registry.base,
        files=files,
        items=mix(files, config.data, config.seed),
        held_out=files[EVAL].items if EVAL in files else (),
        start=None,
    )


def train_and_publish(prepared: Prepared, registry: Registry, progress: Progress, *, who: str) -> Finished:
    """Train and register the result as the adapter's next version."""
    with tempfile.TemporaryDirectory(prefix="wardrobe-train-") as folder:
        out = Path(folder) / "adapter"
        result = _train(prepared, Path(folder) / "work", out, progress)
        paths = prepared.config.data.files
        sources = {label: describe_source(paths[label], found) for label, found in prepared.reports.items()}
        facts = lineage(prepared.config, prepared.base, sources, result)
        progress.publishing()
        return Finished(result, publish(registry, prepared.config, out, facts, who=who))


def train_to_folder(prepared: Prepared, target: Path, progress: Progress) -> Finished:
    """Train and leave the adapter in the new folder `target`, without registering it.

    Raises: Conflict: `target` exists.
    """
    if target.exists():
        raise Conflict(str(target), "exists", "name a new folder", param="out")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as folder:
        out = Path(folder) / "adapter"
        result = _train(prepared, Path(folder) / "work", out, progress)
        progress.publishing()
        shutil.move(out, target)
    return Finished(result, None)


def _train(prepared: Prepared, folder: Path, out: Path, progress: Progress) -> TrainingResult:
    from train.trainer import Task, run_task

    task = Task(prepared.config, prepared.base.path, prepared.items, prepared.held_out, prepared.start)
    return run_task(task, folder, out, progress)


def _check_base(base: BaseModel) -> None:
    from registry.base import read_base

    if not base.path.is_dir():
        raise NotFound(str(base.path), "the base model's folder is gone", "put it back where it was")
    found = read_base(base.path, base.name).fingerprint
    if found != base.fingerprint:
        fact = f"holds another model ({found}) than the root was made for ({base.fingerprint})"
        raise Conflict(str(base.path), fact, "put the recorded base model back")


def _check_lora(config: TrainConfig, registry: Registry) -> None:
    rank, limit = config.lora.highest_rank, registry.limits.max_lora_rank
    if rank > limit:
        fact = f"lora.rank {rank} exceeds this root's max_lora_rank {limit}"
        raise UsageError(config.name, fact, f"set lora.rank to {limit} or less", param="lora.rank")
    wanted, modules = config.lora.target_modules, registry.base.modules
    if wanted == ALL_LINEAR or not modules:
        return
    known = sorted({name.rpartition(".")[2] for name in modules})
    if missing := [name for name in wanted if name not in known]:
        fact = f"lora.target_modules names {', '.join(missing)}, which the base does not have"
        raise UsageError(config.name, fact, f"it has {', '.join(known)}", param="lora.target_modules")
