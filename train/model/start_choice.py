"""What a run starts with, and why: the candidates, their losses, the winner. Pure.

Owns the order of the candidates and the rule: the lowest loss wins; the base stands first, then what an alias
points to, then the newest, and the earlier one wins a tie.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING

from registry.api.documents import Document

if TYPE_CHECKING:
    from registry.records import Version


class Candidate(Document):
    """One start: the base (no `digest`) or a version; `loss` is null where `left_out` says why."""

    name: str
    digest: str | None
    loss: float | None
    left_out: str | None = None


class NearestVersion(Document):
    """What was chosen for `from: nearest`.

    `measured_on` is `held-out` or `training`, `rows` how many rows (the same for all). `passed_over` counts
    versions beyond the limit that nobody looked at. `version` is null where the base won.
    """

    version: str | None
    digest: str | None
    measured_on: str
    rows: int
    candidates: list[Candidate]
    passed_over: int

    @property
    def sentence(self) -> str:
        """Return it in one sentence."""
        measured = [one for one in self.candidates if one.loss is not None]
        base, best = measured[0], self.winner
        of = f"{len(measured) - 1} versions measured on {self.rows} {self.measured_on} rows"
        if self.version is None:
            return f"from: nearest starts from the base (loss {base.loss:.4f}); {of}, none is nearer"
        return f"from: nearest starts from {self.version} (loss {best.loss:.4f}, base {base.loss:.4f}); {of}"

    @property
    def winner(self) -> Candidate:
        """Return the candidate that was chosen."""
        return next(one for one in self.candidates if one.digest == self.digest and one.loss is not None)


def ordered(versions: Iterable[Version], aliased: Collection[str]) -> list[Version]:
    """Return the versions as they are looked at: those in `aliased` (names) first, then the newest."""
    return sorted(versions, key=lambda one: (one.name not in aliased, -one.created, one.adapter, -one.number))


def choose(candidates: Sequence[Candidate], measured_on: str, rows: int, passed_over: int) -> NearestVersion:
    """Return the choice among `candidates`, of which the base is the first and has a loss."""
    able = [one for one in candidates if one.loss is not None and math.isfinite(one.loss)]
    best = min(able, key=lambda one: one.loss if one.loss is not None else math.inf, default=candidates[0])
    return NearestVersion(
        version=None if best.digest is None else best.name,
        digest=best.digest,
        measured_on=measured_on,
        rows=rows,
        candidates=list(candidates),
        passed_over=passed_over,
    )
