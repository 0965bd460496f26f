"""A run that is ready to start: every row rendered, every limit checked. What all of a run passes on.

Owns what a run is made of. The rooms that train, record and publish it read from here and copy nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from pydantic import JsonValue

from registry.records import BaseModelInfo, Version
from train.config import TrainConfig
from train.dataset.sources import Where, hash_source
from train.epoch.duration import Duration
from train.epoch.holdout import HeldOut
from train.epoch.items import ItemCounts, ItemFile, TrainingItem
from train.epoch.mixture import Mixture
from train.jobs.plan import RunPlan, make_plan
from train.model.start_choice import NearestVersion
from train.model.targets import left_out_sentence
from train.settings.data import EVAL


@dataclass(frozen=True, slots=True)
class DataSource:
    """One data file as it was used: where it lay, its SHA-256 (hex) and what it held.

    Without a path it is a share of the others, and the hash that of the row numbers; `facts` say more of it.
    """

    path: Where | None
    sha256: str
    report: ItemCounts
    facts: Mapping[str, JsonValue] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PreparedRun:
    """A run that is ready to start.

    `root` says how a server would read calls of tools. `files` are the data files by the label of their
    source; `eval` and `replay` are such labels too. `mixture` is one epoch, `duration` says how many steps
    and passes the run makes; `parent` is the version that it goes on with, `choice` how `from: nearest`
    found it; `share` says which rows are held out where that is a share of them.
    """

    config: TrainConfig
    root: Path
    base: BaseModelInfo
    files: Mapping[str, ItemFile[TrainingItem]]
    mixture: Mixture
    duration: Duration
    held_out: tuple[TrainingItem, ...] = ()
    parent: Version | None = None
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
            label: DataSource(
                place, hash_source(place), self.reports[label], share.facts(label) if share else {}
            )
            for label, place in self.config.data.files.items()
        }
        if share is not None:
            found[EVAL] = DataSource(None, share.sha256(), self.reports[EVAL], share.facts(EVAL))
        return found

    def plan(self, sources: Mapping[str, DataSource]) -> RunPlan:
        """Return what decides the bytes, as one digest."""
        hashes = {label: source.sha256 for label, source in sources.items()}
        return make_plan(self.config, self.base, hashes, self.parent.digest if self.parent else None)

    def with_rows(self, items: Sequence[TrainingItem], held_out: Sequence[TrainingItem] = ()) -> PreparedRun:
        """Return the run over other rows."""
        return replace(self, mixture=replace(self.mixture, items=tuple(items)), held_out=tuple(held_out))
