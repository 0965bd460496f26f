"""How far raters agree beyond chance, for nominal ratings. Pure.

Cohen (1960) for two raters on the items both rated; Krippendorff (2011, "Computing Krippendorff's
Alpha-Reliability") for any number of raters and missing ratings.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence


def cohen_kappa(first: Mapping[str, str], second: Mapping[str, str]) -> float | None:
    """Return Cohen's kappa of two raters' ratings by item; None without a common item.

    1.0 where both gave one and the same rating to everything, although chance alone would do that too.
    """
    common = sorted(first.keys() & second.keys())
    if not common:
        return None
    size = len(common)
    observed = sum(first[item] == second[item] for item in common) / size
    ones, twos = Counter(first[item] for item in common), Counter(second[item] for item in common)
    expected = sum(ones[rating] * twos[rating] for rating in ones) / size**2
    return 1.0 if expected == 1 else (observed - expected) / (1 - expected)


def krippendorff_alpha(raters: Sequence[Mapping[str, str]]) -> float | None:
    """Return Krippendorff's alpha for nominal ratings; None where no item has two ratings."""
    units = [
        [rater[item] for rater in raters if item in rater]
        for item in sorted({item for rater in raters for item in rater})
    ]
    paired = [unit for unit in units if len(unit) > 1]
    total = sum(len(unit) for unit in paired)
    if total == 0:
        return None
    counts = Counter(rating for unit in paired for rating in unit)
    disagreed = sum(_disagreement(unit) / (len(unit) - 1) for unit in paired) / total
    by_chance = sum(count * (total - count) for count in counts.values()) / (total * (total - 1))
    return 1.0 if by_chance == 0 else 1 - disagreed / by_chance


def _disagreement(unit: Sequence[str]) -> int:
    """Return the number of ordered pairs of different ratings within one item."""
    counts = Counter(unit)
    return sum(count * (len(unit) - count) for count in counts.values())
