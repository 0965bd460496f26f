"""The JSON report of an average: what `--json` prints."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self

from registry.api.documents import Document

if TYPE_CHECKING:
    from registry.records import Published
    from train.averaging.combination import Average
    from train.averaging.sources import AveragingSource


class AverageSource(Document):
    """One source: its share of 1, the rows that its lineage tells, the Frobenius norm of what it changes."""

    name: str
    digest: str
    rank: int
    rows: int | None
    weight: float
    norm: float


class AverageReport(Document):
    """An average: as a version (`adapter`, `version`, `digest`), or in the folder `out`.

    `residual` is the share of the average that the LoRA leaves out (Frobenius norm); `exact_rank` would leave
    nothing out. `agreement` is 1 where all sources change the same way, 1/√n where n share nothing.
    """

    adapter: str | None
    version: int | None
    digest: str | None
    created: bool
    out: str | None
    weighed_by: str
    sources: list[AverageSource]
    rank: int
    exact_rank: int
    modules: int
    residual: float
    agreement: float
    warnings: list[str]

    @classmethod
    def of(
        cls,
        sources: Sequence[AveragingSource],
        weighed_by: str,
        shares: Sequence[float],
        found: Average,
        *,
        out: Path | None = None,
        published: Published | None = None,
    ) -> Self:
        """Describe an average."""
        version = published.version if published else None
        warnings = [f"{source.name}: {text}" for source in sources for text in source.inspected.warnings]
        return cls(
            adapter=version.adapter if version else None,
            version=version.number if version else None,
            digest=version.digest if version else None,
            created=published.created if published else True,
            out=str(out) if out else None,
            weighed_by=weighed_by,
            sources=[
                AverageSource(
                    name=source.name,
                    digest=source.digest,
                    rank=source.inspected.rank,
                    rows=source.rows,
                    weight=share,
                    norm=norm,
                )
                for source, share, norm in zip(sources, shares, found.norms, strict=True)
            ],
            rank=found.extraction.rank,
            exact_rank=found.exact_rank,
            modules=len(found.extraction.modules),
            residual=found.extraction.residual,
            agreement=found.agreement,
            warnings=[*warnings, *(published.warnings if published else ())],
        )
