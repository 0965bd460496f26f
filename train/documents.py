"""The JSON documents of the training commands: what `--json` prints."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Self

from registry.documents import Document

if TYPE_CHECKING:
    from train.run import Finished, Prepared


class BaseFolder(Document):
    """The demo's base model; `created` is False where it was there already."""

    path: str
    created: bool


class DataCounts(Document):
    """One data file: rows, tokens, tokens with a loss, and the rows whose end is cut off."""

    rows: int
    tokens: int
    learnt_tokens: int
    longest: int
    truncated: list[int]


class CheckReport(Document):
    """A run that could start."""

    adapter: str
    base: str
    data: dict[str, DataCounts]

    @classmethod
    def of(cls, prepared: Prepared) -> Self:
        """Describe a prepared run."""
        data = {
            name: DataCounts(
                rows=found.rows,
                tokens=found.tokens,
                learnt_tokens=found.learnt_tokens,
                longest=found.longest,
                truncated=list(found.truncated),
            )
            for name, found in prepared.reports.items()
        }
        return cls(adapter=prepared.config.name, base=prepared.base.name, data=data)


class RunReport(Document):
    """A run that ended; `version` and `digest` are null where it was kept in the folder `out`.

    `seconds` is the whole command, `train_seconds` the steps alone.
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
    warnings: list[str]

    @classmethod
    def of(cls, finished: Finished, out: Path | None, seconds: float) -> Self:
        """Describe a finished run."""
        result, published = finished.result, finished.published
        version = published.version if published else None
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
            warnings=list(published.warnings) if published else [],
        )
