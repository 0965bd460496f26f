"""The JSON documents of the training commands: what `--json` prints."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Self

from pydantic import JsonValue

from registry.api.documents import Document
from train.epoch.items import ItemCounts
from train.epoch.length_report import LengthReport
from train.epoch.mixture import MixtureShare
from train.jobs.store import REWARD
from train.model.start_choice import NearestVersion
from train.model.targets import targeted_modules

if TYPE_CHECKING:
    from train.epoch.holdout import HeldOut
    from train.prepared import PreparedRun
    from train.runs.run import Finished


class BaseFolder(Document):
    """The demo's base model; `created` is False where it was there already."""

    path: str
    created: bool


class HeldOutShare(Document):
    """Rows that are held out by share: `rows` of `of`, in `clusters` of rows that are alike; by source."""

    share: float
    rows: int
    of: int
    clusters: int
    sources: dict[str, int]


class CheckReport(Document):
    """A run that could start; `parent` is the version that it goes on with, `length` how long it is.

    `modules` counts the modules that are trained, by the last part of their names; `rank` is the adapter's.
    `nearest` is how `from: nearest` found the parent; `held_out` is null unless `data.eval` is a share.
    """

    adapter: str
    base: str
    parent: str | None
    nearest: NearestVersion | None
    rank: int
    modules: dict[str, int]
    data: dict[str, ItemCounts]
    mixture: dict[str, MixtureShare]
    length: LengthReport
    held_out: HeldOutShare | None = None

    @classmethod
    def of(cls, prepared: PreparedRun) -> Self:
        """Describe a prepared run."""
        parent = prepared.parent.name if prepared.parent else None
        return cls(
            adapter=prepared.config.name,
            base=prepared.base.name,
            parent=parent,
            nearest=prepared.choice,
            rank=prepared.config.lora.rank,
            modules=_modules(prepared),
            data=prepared.reports,
            mixture=dict(prepared.mixture.shares),
            held_out=_held_out(prepared.share),
            length=LengthReport.of(prepared.duration, prepared.config),
        )


def _modules(prepared: PreparedRun) -> dict[str, int]:
    names = targeted_modules(prepared.config.lora, prepared.base.modules)
    return dict(sorted(Counter(name.rpartition(".")[2] for name in names).items()))


class RunReport(Document):
    """A run that ended; `version` and `digest` are null where it was kept in the folder `out`.

    `job` is its id; `artefact` the folder of a reward model; `taken` the step that became the result, and
    `why`; `outcome` compares what was trained with what was saved. `seconds` is the whole command,
    `train_seconds` the steps alone.
    """

    adapter: str | None
    version: int | None
    digest: str | None
    created: bool
    out: str | None
    steps: int
    tokens: int
    seconds: float
    train_seconds: float
    tokens_per_second: float
    first_loss: float
    last_loss: float
    eval_loss: float | None
    taken: int
    why: str
    outcome: dict[str, JsonValue] | None
    job: str
    artefact: str | None
    warnings: list[str]

    @classmethod
    def of(cls, finished: Finished, out: Path | None, seconds: float) -> Self:
        """Describe a finished run."""
        result, published = finished.result, finished.published
        version = published.version if published else None
        reward = finished.job.folder / REWARD
        return cls(
            adapter=version.adapter if version else None,
            version=version.number if version else None,
            digest=version.digest if version else None,
            created=published.created if published else True,
            out=str(out) if out else None,
            steps=result.steps,
            tokens=result.tokens,
            seconds=seconds,
            train_seconds=result.seconds,
            tokens_per_second=result.tokens_per_second,
            first_loss=result.first_loss,
            last_loss=result.last_loss,
            eval_loss=result.eval_loss,
            taken=result.taken,
            why=result.why,
            outcome=result.outcome.document() if result.outcome else None,
            job=finished.job.id,
            artefact=str(reward) if reward.is_dir() else None,
            warnings=[*result.warnings, *(published.warnings if published else ())],
        )


def _held_out(held: HeldOut | None) -> HeldOutShare | None:
    if held is None:
        return None
    sources = {label: len(rows) for label, rows in held.numbers.items()}
    return HeldOutShare(
        share=held.share, rows=held.count, of=held.of, clusters=held.clusters, sources=sources
    )
