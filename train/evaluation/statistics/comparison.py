"""Two arms on the same items: the gain, its limits, and how sure it is that it exceeds a margin. Pure.

Invariants: only items that both arms were judged on are compared, and `missing` counts the rest; "gain" is
positive where the first arm is better, also for figures of which less is better.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from train.evaluation.formats.specs import Spec
from train.evaluation.grading.grades import Grade
from train.evaluation.statistics.binary import binary_limits, binary_p_value
from train.evaluation.statistics.figures import figure_of, is_binary, is_mean, parts
from train.evaluation.statistics.paired import (
    Floats,
    bootstrap,
    score_p_value,
    swap_p_value,
)

MOST_ITEMS = 1_000_000
_POWER_Z = 0.8416  # 80 %


@dataclass(frozen=True, slots=True)
class PairedComparison:
    """One figure of two arms on the same items.

    `gain` and its 95 % limits `low` and `high` are in the figure's unit. `p_above` is the p-value of "the
    gain is at most `margin`", `p_below` of "the gain is at least `margin`". `spread` is the standard
    deviation of one item's difference; `changed` counts items whose score differs.
    """

    items: int
    missing: int
    mine: float
    other: float
    gain: float
    low: float
    high: float
    margin: float
    p_above: float
    p_below: float
    spread: float
    changed: int
    test: str


def compare(
    spec: Spec,
    mine: Sequence[Grade],
    other: Sequence[Grade],
    *,
    margin: float,
    seed: int,
    lower: bool = False,
) -> PairedComparison | None:
    """Compare two arms; None when no item was judged in both. With `lower`, less is better."""
    both = [(a, b) for a, b in zip(mine, other, strict=True) if a.score is not None and b.score is not None]
    missing = sum((a.score is None) != (b.score is None) for a, b in zip(mine, other, strict=True))
    if not both:
        return None
    first, second = [pair[0] for pair in both], [pair[1] for pair in both]
    if not is_mean(spec):
        return _corpus(spec, first, second, missing, margin, seed, lower=lower)
    up, down = (second, first) if lower else (first, second)
    if is_binary(spec, [*first, *second]):
        found = _binary(up, down, missing, margin)
    else:
        found = _scores(up, down, missing, margin, seed)
    return replace(found, mine=found.other, other=found.mine) if lower else found


def items_needed(found: PairedComparison, alpha: float) -> int:
    """Return how many more items would probably (80 %) tell on which side of the margin the gain lies.

    Takes the gain and spread that were seen as true; at most a million, so never infinite.
    """
    distance = abs(found.gain - found.margin)
    # One more item that differs: with none at all, the spread would be 0 and one item would do.
    variance = (found.spread**2 * found.items + 1) / (found.items + 1)
    total = MOST_ITEMS
    if distance > 0:
        z = _z(alpha) + _POWER_Z
        total = math.ceil(min(MOST_ITEMS, 1.1 * z * z * variance / distance**2))
    return min(MOST_ITEMS, max(total - found.items, math.ceil(found.items / 10), 1))


def _binary(first: Sequence[Grade], second: Sequence[Grade], missing: int, margin: float) -> PairedComparison:
    items = len(first)
    better = sum(a.score == 1.0 and b.score == 0.0 for a, b in zip(first, second, strict=True))
    worse = sum(a.score == 0.0 and b.score == 1.0 for a, b in zip(first, second, strict=True))
    low, high = binary_limits(better, worse, items)
    gain = (better - worse) / items
    return PairedComparison(
        items=items,
        missing=missing,
        mine=_mean(first),
        other=_mean(second),
        gain=gain,
        low=low,
        high=high,
        margin=margin,
        p_above=binary_p_value(better, worse, items, margin),
        p_below=binary_p_value(worse, better, items, -margin),
        spread=math.sqrt(max(0.0, (better + worse) / items - gain**2)),
        changed=better + worse,
        test="mcnemar" if margin == 0 else "exact unconditional",
    )


def _scores(
    first: Sequence[Grade], second: Sequence[Grade], missing: int, margin: float, seed: int
) -> PairedComparison:
    gaps = np.array([a.score or 0.0 for a in first]) - np.array([b.score or 0.0 for b in second])
    low, high = _bootstrap_limits(gaps, seed)
    return PairedComparison(
        items=len(first),
        missing=missing,
        mine=_mean(first),
        other=_mean(second),
        gain=float(gaps.mean()),
        low=low,
        high=high,
        margin=margin,
        p_above=score_p_value(gaps, margin, seed),
        p_below=score_p_value(-gaps, -margin, seed),
        spread=float(gaps.std()),
        changed=int(np.sum(gaps != 0)),
        test="sign flips of t",
    )


def _corpus(
    spec: Spec,
    first: Sequence[Grade],
    second: Sequence[Grade],
    missing: int,
    margin: float,
    seed: int,
    *,
    lower: bool,
) -> PairedComparison:
    of, sign = figure_of(spec), -1.0 if lower else 1.0
    mine, other = parts(spec, first), parts(spec, second)
    draws = sign * bootstrap(of, mine, other, seed)
    low, high = np.quantile(draws, [0.025, 0.975])
    values = [float(of(sums.sum(0)[None])[0]) for sums in (mine, other)]
    return PairedComparison(
        items=len(first),
        missing=missing,
        mine=values[0],
        other=values[1],
        gain=sign * (values[0] - values[1]),
        low=float(low),
        high=float(high),
        margin=margin,
        p_above=_corpus_p(of, (other, mine) if lower else (mine, other), draws, margin, seed),
        p_below=_corpus_p(of, (mine, other) if lower else (other, mine), -draws, -margin, seed),
        spread=float(draws.std() * math.sqrt(len(first))),
        changed=int(np.sum(np.any(mine != other, axis=1))),
        test="paired bootstrap" + (" and swaps" if margin == 0 else ""),
    )


def _corpus_p(
    of: Callable[[Floats], Floats], arms: tuple[Floats, Floats], draws: Floats, margin: float, seed: int
) -> float:
    """Return the bootstrap's p-value and, without a margin, that of swaps where it is greater."""
    p_value = (1 + float(np.sum(draws <= margin))) / (1 + len(draws))
    return p_value if margin != 0 else max(p_value, swap_p_value(of, *arms, seed))


def _bootstrap_limits(gaps: Floats, seed: int) -> tuple[float, float]:
    draws = np.random.default_rng(seed)
    means = [float(draws.choice(gaps, len(gaps)).mean()) for _ in range(2_000)]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def _mean(grades: Sequence[Grade]) -> float:
    return float(np.mean([grade.score or 0.0 for grade in grades]))


def _z(alpha: float) -> float:
    from scipy.stats import norm

    return float(norm.ppf(1 - alpha))
