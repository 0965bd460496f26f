"""A training run from its config to its version: check, train, publish.

Owns the order of the steps and what is left behind: until `publish` nothing is in the root, so an
interrupted or failed run leaves no trace there.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from registry.errors import Conflict, NotFound, UsageError
from registry.records import BaseModel, Published
from train.config import ALL_LINEAR, TrainConfig
from train.data import DataReport, Example, load_examples, report
from train.publish import describe_source, lineage, publish

if TYPE_CHECKING:
    from registry.store import Registry
    from train.trainer import Progress, TrainingResult


@dataclass(frozen=True, slots=True)
class Prepared:
    """A run that is ready to start: every row rendered, every limit checked."""

    config: TrainConfig
    base: BaseModel
    examples: tuple[Example, ...]
    held_out: tuple[Example, ...]

    @property
    def reports(self) -> dict[str, DataReport]:
        """Return the counts of each data file, `train` and, where given, `eval`."""
        found = {"train": report(self.examples)}
        return {**found, "eval": report(self.held_out)} if self.held_out else found


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
    from train.trainer import load_tokenizer

    _check_base(registry.base)
    _check_lora(config, registry)
    tokenizer = load_tokenizer(registry.base.path)
    limit = config.training.max_length
    held_out = load_examples(config.data.eval, tokenizer, max_length=limit) if config.data.eval else []
    examples = load_examples(config.data.train, tokenizer, max_length=limit)
    return Prepared(config, registry.base, tuple(examples), tuple(held_out))


def train_and_publish(prepared: Prepared, registry: Registry, progress: Progress, *, who: str) -> Finished:
    """Train and register the result as the adapter's next version."""
    with tempfile.TemporaryDirectory(prefix="wardrobe-train-") as folder:
        result = _train(prepared, Path(folder), progress)
        sources = {
            name: describe_source(path, found)
            for name, found in prepared.reports.items()
            if (path := getattr(prepared.config.data, name)) is not None
        }
        facts = lineage(prepared.config, prepared.base, sources, result)
        progress.publishing()
        return Finished(result, publish(registry, prepared.config, Path(folder), facts, who=who))


def train_to_folder(prepared: Prepared, target: Path, progress: Progress) -> Finished:
    """Train and leave the adapter in the new folder `target`, without registering it.

    Raises: Conflict: `target` exists.
    """
    if target.exists():
        raise Conflict(str(target), "exists", "name a new folder", param="out")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as folder:
        result = _train(prepared, Path(folder) / "adapter", progress)
        progress.publishing()
        shutil.move(Path(folder) / "adapter", target)
    return Finished(result, None)


def _train(prepared: Prepared, folder: Path, progress: Progress) -> TrainingResult:
    from train.trainer import train_adapter

    return train_adapter(
        prepared.config, prepared.base.path, prepared.examples, prepared.held_out, folder, progress
    )


def _check_base(base: BaseModel) -> None:
    from registry.base import read_base

    if not base.path.is_dir():
        raise NotFound(str(base.path), "the base model's folder is gone", "put it back where it was")
    found = read_base(base.path, base.name).fingerprint
    if found != base.fingerprint:
        fact = f"holds another model ({found}) than the root was made for ({base.fingerprint})"
        raise Conflict(str(base.path), fact, "put the recorded base model back")


def _check_lora(config: TrainConfig, registry: Registry) -> None:
    rank, limit = config.lora.rank, registry.limits.max_lora_rank
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
