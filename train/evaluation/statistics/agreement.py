"""How far raters agree beyond chance, for nominal ratings. Pure.

Cohen (1960) for two raters on the items both rated; Krippendorff's alpha (`train.annotations`) for any number
of raters and missing ratings.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from train.annotations.agreement import point


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
    """Return Krippendorff's alpha for nominal ratings; None where no item has two ratings.

    1.0 where all ratings are the same, although chance alone would do that too.
    """
    items = sorted({item for rater in raters for item in rater})
    units = [[rater[item] for rater in raters if item in rater] for item in items]
    paired = [unit for unit in units if len(unit) > 1]
    if not paired:
        return None
    found = point(paired, sorted({rating for unit in paired for rating in unit}))
    return 1.0 if found is None else found
