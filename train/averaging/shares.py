"""How much each source counts. Pure.

Invariant: the shares are positive and add up to 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from registry.errors import UsageError

if TYPE_CHECKING:
    from train.averaging.sources import AveragingSource

ROWS, EQUAL = "rows", "equal"


def parse_weights(text: str | None) -> str | tuple[float, ...] | None:
    """Return what `--weights` says: `rows`, `equal`, numbers (`3,1`), or None where it is not given.

    Raises: UsageError: a weight that is not a number above 0.
    """
    if text is None or text in {ROWS, EQUAL}:
        return text
    return tuple(_weight(part.strip()) for part in text.split(","))


def shares_of(
    sources: Sequence[AveragingSource], weights: str | tuple[float, ...] | None
) -> tuple[str, list[float]]:
    """Return by what the sources are weighed, in a word, and each one's share of 1.

    Without `weights`: by rows where every lineage tells them, else equally.

    Raises: UsageError: as many weights as sources are not given, or a lineage tells no rows.
    """
    if isinstance(weights, tuple):
        if len(weights) != len(sources):
            fact = f"{len(weights)} weights for {len(sources)} sources"
            raise UsageError("--weights", fact, "give one per source, in their order", param="weights")
        return "given", _normalised(weights)
    silent = [source.name for source in sources if source.rows is None]
    if weights == EQUAL or (weights is None and silent):
        return EQUAL, [1 / len(sources)] * len(sources)
    if silent:
        fact = f"no lineage tells the rows of {', '.join(silent)}"
        raise UsageError("--weights rows", fact, "give numbers, or equal", param="weights")
    return ROWS, _normalised([float(source.rows or 0) for source in sources])


def _weight(text: str) -> float:
    try:
        value = float(text) if text.isascii() else math.nan
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        fact = f"{text!r} is not a number above 0"
        raise UsageError("--weights", fact, f"give numbers like 3,1, or {ROWS}, or {EQUAL}", param="weights")
    return value


def _normalised(weights: Sequence[float]) -> list[float]:
    largest = max(weights)
    parts = [weight / largest for weight in weights]  # their sum cannot overflow
    shares = [part / sum(parts) for part in parts]
    if 0.0 in shares:
        fact = f"{min(weights):g} is nothing beside {largest:g}"
        raise UsageError("--weights", fact, "leave that source out", param="weights")
    return shares
