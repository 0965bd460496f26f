"""The paired tests keep their level, by exact sums and by simulation with fixed seeds.

Tolerance of a simulated rate: three standard errors above the level (`allowed`).
"""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from scipy.stats import binom, binomtest, multinomial

from train.evaluation.formats import specs
from train.evaluation.grading.grades import Grade
from train.evaluation.statistics.binary import (
    ENUMERATED,
    _difference_tails,
    _score,
    _score_tails,
    binary_limits,
    binary_p_value,
)
from train.evaluation.statistics.comparison import MOST_ITEMS, compare, items_needed
from train.evaluation.statistics.paired import (
    Floats,
    bootstrap,
    score_p_value,
    swap_p_value,
    wilson,
)

EXACT = specs.Exact(type="exact")
ALPHA = 0.05


def allowed(level: float, runs: int) -> float:
    return level + 3 * math.sqrt(level * (1 - level) / runs)


def binary_grades(better: int, worse: int, right: int, wrong: int) -> tuple[list[Grade], list[Grade]]:
    mine = [1.0] * better + [0.0] * worse + [1.0] * right + [0.0] * wrong
    other = [0.0] * better + [1.0] * worse + [1.0] * right + [0.0] * wrong
    return [Grade(one) for one in mine], [Grade(one) for one in other]


def test_without_a_margin_it_is_the_exact_mcnemar_test() -> None:
    for better, worse in ((0, 0), (1, 0), (9, 2), (30, 31)):
        expected = binomtest(better, better + worse, alternative="greater").pvalue if better + worse else 1.0
        assert binary_p_value(better, worse, 100, 0.0) == pytest.approx(expected)


def test_tails_are_those_of_an_enumeration() -> None:
    items, up, down, margin = 6, 0.3, 0.25, 0.05
    masses = {1: up, -1: down, 0: 1 - up - down}

    def probability(steps: tuple[int, ...]) -> float:
        return math.prod(masses[step] for step in steps)

    def score(steps: tuple[int, ...]) -> float:
        return float(_score(np.array([steps.count(1)]), np.array([steps.count(-1)]), items, margin)[0])

    every = list(product(masses, repeat=items))
    for better, worse in ((0, 0), (2, 0), (3, 1), (1, 4), (6, 0)):
        args = (better, worse, items, margin, np.array([up]), np.array([down]))
        plain = sum(probability(steps) for steps in every if sum(steps) >= better - worse)
        assert _difference_tails(*args)[0] == pytest.approx(plain)
        observed = float(_score(np.array([better]), np.array([worse]), items, margin)[0])
        scored = sum(probability(steps) for steps in every if score(steps) >= observed - 1e-9)
        assert _score_tails(*args)[0] == pytest.approx(scored)


@pytest.mark.parametrize(("discordant", "margin"), [(0.2, -0.05), (0.3, 0.05), (0.05, -0.03)])
def test_right_or_wrong_the_level_is_kept_by_exact_sums(discordant: float, margin: float) -> None:
    items = 40
    shares = [(discordant + margin) / 2, (discordant - margin) / 2, 1 - discordant]
    level = 0.0
    for better, worse in product(range(23), repeat=2):
        chance = float(multinomial.pmf([better, worse, items - better - worse], items, shares))
        if better + worse <= items and chance > 1e-7:
            level += chance * (binary_p_value(better, worse, items, margin) <= ALPHA)
    assert 0.2 * ALPHA < level <= ALPHA


def test_beyond_the_enumeration_the_p_value_stays_near() -> None:
    below = binary_p_value(70, 40, ENUMERATED, 0.02)
    above = binary_p_value(70, 40, ENUMERATED + 1, 0.02)
    assert below < above < 3 * below
    assert binary_p_value(0, 0, 10_000, -0.05) < 0.01
    assert binary_p_value(300, 300, 10_000, 0.02) > 0.99


@pytest.mark.parametrize(
    ("items", "discordant", "gain"), [(40, 0.1, 0.0), (60, 0.4, 0.1), (700, 0.2, -0.05), (100, 0.05, 0.03)]
)
def test_right_or_wrong_a_false_gain_is_as_rare_as_alpha_says(
    items: int, discordant: float, gain: float
) -> None:
    runs = 400
    shares = [(discordant + gain) / 2, (discordant - gain) / 2, 1 - discordant]
    draws = np.random.default_rng(11).multinomial(items, shares, size=runs)
    false = sum(binary_p_value(int(up), int(down), items, gain) <= ALPHA for up, down, _ in draws)
    assert false / runs <= allowed(ALPHA, runs)


def test_right_or_wrong_a_true_gain_is_found() -> None:
    draws = np.random.default_rng(12).multinomial(300, [0.2, 0.1, 0.7], size=200)
    found = sum(binary_p_value(int(up), int(down), 300, 0.02) <= ALPHA for up, down, _ in draws)
    assert found / 200 > 0.78  # the normal approximation says 0.82


def test_limits_hold_the_true_gain() -> None:
    runs = 600
    draws = np.random.default_rng(13).multinomial(80, [0.15, 0.1, 0.75], size=runs)
    missed = 0
    for up, down, _ in draws:
        low, high = binary_limits(int(up), int(down), 80)
        assert low <= (up - down) / 80 <= high
        missed += not low <= 0.05 <= high
    assert missed / runs <= allowed(0.05, runs)


def test_limits_of_extremes_are_no_certainty() -> None:
    low, high = binary_limits(0, 0, 50)
    assert low == pytest.approx(-high)
    assert 0.03 < high < 0.2
    low, high = binary_limits(50, 0, 50)
    assert 0.8 < low < 0.95
    assert high == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("margin", [0.0, 0.1])
def test_scores_a_false_gain_is_as_rare_as_alpha_says(margin: float) -> None:
    runs, false = 300, 0
    draws = np.random.default_rng(14)
    for run in range(runs):
        # Skewed on purpose: a beta and a shifted one.
        gaps = draws.beta(2, 5, 40) - draws.beta(2, 5, 40) + margin
        false += score_p_value(gaps, margin, seed=run) <= ALPHA
    assert false / runs <= allowed(ALPHA, runs)
    assert score_p_value(np.full(40, margin + 0.2) + draws.normal(0, 0.1, 40), margin, seed=0) < 0.001


def test_scores_agree_with_the_exact_permutation_distribution() -> None:
    gaps = np.array([0.3, 0.1, -0.2, 0.4, 0.25, 0.05, -0.1, 0.35])

    def t_of(values: Floats) -> float:
        return float(values.mean() / max(values.std(ddof=1), 1e-12))

    flips = [t_of(gaps * np.array(signs)) for signs in product((1.0, -1.0), repeat=8)]
    exact = sum(value >= t_of(gaps) - 1e-12 for value in flips) / len(flips)
    assert score_p_value(gaps, 0.0, seed=3) == pytest.approx(exact, abs=0.01)


def test_a_corpus_figure_a_false_gain_is_rare() -> None:
    def ratio(sums: Floats) -> Floats:
        return np.asarray(sums[:, 0] / np.maximum(sums[:, 1], 1))

    runs, false = 150, 0
    draws = np.random.default_rng(15)
    for run in range(runs):
        sizes = draws.integers(1, 30, 60).astype(np.float64)
        mine, other = (np.stack([draws.binomial(sizes.astype(int), 0.4), sizes], 1) for _ in range(2))
        by_swaps = swap_p_value(ratio, mine.astype(float), other.astype(float), run, resamples=400)
        by_bootstrap = np.mean(bootstrap(ratio, mine.astype(float), other.astype(float), run, 400) <= 0)
        false += max(by_swaps, float(by_bootstrap)) <= ALPHA
    assert false / runs <= allowed(ALPHA, runs)


def test_wilson_agrees_with_scipy() -> None:
    for right, items in ((0, 5), (3, 7), (250, 500), (9, 9)):
        expected = binomtest(right, items).proportion_ci(method="wilson")
        assert wilson(right, items) == pytest.approx((expected.low, expected.high))


def test_the_items_still_needed_are_enough_four_times_in_five() -> None:
    mine, other = binary_grades(better=9, worse=5, right=40, wrong=6)
    found = compare(EXACT, mine, other, margin=0.0, seed=0)
    assert found is not None
    assert found.p_above > ALPHA
    total = found.items + items_needed(found, ALPHA)
    assert 300 < total < 500
    draws = np.random.default_rng(16).multinomial(total, [9 / 60, 5 / 60, 46 / 60], size=400)
    told = sum(binary_p_value(int(up), int(down), total, 0.0) <= ALPHA for up, down, _ in draws)
    assert 0.72 < told / 400 < 0.95


def test_the_items_still_needed_are_never_infinite() -> None:
    same = compare(EXACT, *binary_grades(5, 5, 10, 0), margin=0.0, seed=0)
    assert same is not None
    assert items_needed(same, ALPHA) == MOST_ITEMS - 20
    nothing = compare(EXACT, *binary_grades(0, 0, 5, 0), margin=-0.05, seed=0)
    assert nothing is not None
    assert 30 < items_needed(nothing, ALPHA) < 1_000_000


def test_less_is_better_turns_the_gain_round() -> None:
    mine, other = binary_grades(2, 9, 20, 20)
    more = compare(EXACT, mine, other, margin=0.0, seed=0)
    less = compare(EXACT, mine, other, margin=0.0, seed=0, lower=True)
    assert more is not None
    assert less is not None
    assert less.gain == pytest.approx(-more.gain)
    assert (less.mine, less.other) == (more.mine, more.other)
    assert less.p_above == pytest.approx(float(binom.sf(8, 11, 0.5)))
    perplexity = specs.Perplexity(type="perplexity")
    low = [Grade(2.0, (-0.69 * 10, 10.0))] * 30
    high = [Grade(3.0, (-1.1 * 10, 10.0))] * 30
    better = compare(perplexity, low, high, margin=0.0, seed=0, lower=True)
    assert better is not None
    assert better.gain > 0.9
    assert better.p_above < 0.001


def test_items_judged_once_are_missing_and_not_compared() -> None:
    mine, other = binary_grades(3, 0, 3, 0)
    mine[0] = Grade(None)
    found = compare(EXACT, mine, other, margin=0.0, seed=0)
    assert found is not None
    assert (found.items, found.missing) == (5, 1)
    assert compare(EXACT, [Grade(None)], [Grade(1.0)], margin=0.0, seed=0) is None
