"""From sources and weights to a folder or a version, with its lineage."""

from __future__ import annotations

import platform
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from registry.changes.publish import refuse_base_name
from registry.validation.chat_template import TEMPLATE_NAME
from train.averaging.combination import Average, average
from train.averaging.documents import AverageReport
from train.averaging.shares import shares_of
from train.averaging.sources import AVERAGE, AveragingSource, find_sources
from train.merging.staging import check_free, new_folder
from train.runs.lineage import installed

if TYPE_CHECKING:
    from pydantic import JsonValue

    from registry.records import BaseModelInfo, Published
    from registry.store import Registry


@dataclass(frozen=True, slots=True)
class AveragingRequest:
    """What is to be averaged and how; `rank` None takes what is needed, up to the root's limit.

    `weights` are as `shares.parse_weights` returns them. `holding` is called before anything is registered.
    """

    sources: Sequence[str]
    weights: str | tuple[float, ...] | None
    rank: int | None
    accept_residual: float
    holding: Callable[[], object] = lambda: None


def average_to_folder(order: AveragingRequest, registry: Registry, out: Path) -> AverageReport:
    """Write the average into the new folder `out` and register nothing.

    Raises: Conflict: `out` exists; whatever `find_sources`, `shares_of` and `average` raise.
    """
    check_free(out)
    with new_folder(out) as folder:
        made = _make(order, registry, folder)
    return made.report(out, None)


def average_to_version(
    order: AveragingRequest,
    registry: Registry,
    name: str,
    *,
    who: str,
    alias: str | None = None,
    note: str = "",
) -> AverageReport:
    """Register the average as the next version of `name`, with every source in its lineage.

    Raises: InvalidName; Conflict; InvalidAdapter; whatever `average_to_folder` raises; StorageFailed.
    """
    refuse_base_name(registry.catalogue, name)
    with tempfile.TemporaryDirectory(prefix="wardrobe-average-") as place:
        folder = Path(place)
        made = _make(order, registry, folder)
        order.holding()
        facts = made.lineage(registry.base, order)
        published = registry.publish(name, folder, alias=alias, note=note, who=who, lineage=facts)
    return made.report(None, published)


@dataclass(frozen=True, slots=True)
class _Made:
    sources: Sequence[AveragingSource]
    weighed_by: str
    shares: Sequence[float]
    average: Average

    def report(self, out: Path | None, published: Published | None) -> AverageReport:
        return AverageReport.of(
            self.sources, self.weighed_by, self.shares, self.average, out=out, published=published
        )

    def lineage(self, base: BaseModelInfo, order: AveragingRequest) -> dict[str, JsonValue]:
        """Return where the average came from; its data files are those of its sources."""
        rows = [source.rows for source in self.sources]
        goals = {source.goal for source in self.sources}
        found = self.average
        return {
            "method": AVERAGE,
            "sources": [
                {"name": s.name, "digest": s.digest, "weight": share, "rows": s.rows, "norm": norm}
                for s, share, norm in zip(self.sources, self.shares, found.norms, strict=True)
            ],
            "weighed_by": self.weighed_by,
            "rows": sum(row for row in rows if row is not None) if None not in rows else None,
            "goal_sha256": goals.pop() if len(goals) == 1 else None,
            "data": {
                f"{s.name} {label}": told for s in self.sources for label, told in (s.data or {}).items()
            },
            "base": {"name": base.name, "fingerprint": base.fingerprint},
            "parent": None,
            "average": {
                "rank": found.extraction.rank,
                "exact_rank": found.exact_rank,
                "residual": found.extraction.residual,
                "accepted_residual": order.accept_residual,
                "norm": found.extraction.norm,
                "agreement": found.agreement,
            },
            "packages": installed(),
            "python": platform.python_version(),
            "machine": f"{platform.machine()} {platform.system()}",
        }


def _make(order: AveragingRequest, registry: Registry, folder: Path) -> _Made:
    sources = find_sources(order.sources, registry)
    weighed_by, shares = shares_of(sources, order.weights)
    found = average(
        sources,
        shares,
        registry.base,
        folder,
        rank=order.rank,
        max_rank=registry.limits.max_lora_rank,
        accept_residual=order.accept_residual,
    )
    for file in sources[0].inspected.files:  # all have the same template, or none
        if file.name == TEMPLATE_NAME and isinstance(file.source, bytes):
            (folder / file.name).write_bytes(file.source)
    return _Made(sources, weighed_by, shares, found)
