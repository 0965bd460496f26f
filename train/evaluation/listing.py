"""The JSON documents of the smaller commands, and how a person reads them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from registry.api.documents import Document

if TYPE_CHECKING:
    from train.evaluation.blind import HumanReport


class BlindDocument(Document):
    """The files of a blind comparison."""

    file: str
    key: str
    items: int


def human_facts(report: HumanReport) -> Iterator[tuple[str, str]]:
    """Yield what a person wants to know of a blind comparison."""
    yield "raters", f"{report.raters}, {report.ratings} ratings"
    for name, count in report.wins.items():
        yield name, str(count)
    if report.share is not None:
        yield f"{report.first} preferred", f"{report.share:.3f} ({report.low:.3f}-{report.high:.3f})"
    if report.preferred_a is not None:
        yield "A preferred", f"{report.preferred_a:.3f} (far from 0.5: raters favour a place)"
    if report.cohen_kappa is not None:
        yield "Cohen's kappa", f"{report.cohen_kappa:.3f}"
    if report.krippendorff_alpha is not None:
        yield "Krippendorff's alpha", f"{report.krippendorff_alpha:.3f}"
