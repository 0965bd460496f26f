"""The e-values: valid under the null at every look, steady for any counts, and as good as promised."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import beta

from serve.rollout.recording.evidence import Evidence, UnitScore
from serve.rollout.statistics.carrying import carry, log_terms, mix, start_weights
from serve.rollout.statistics.feedback import log_growth, pair_scores, stake
from serve.rollout.statistics.imbalance import log_imbalance_e, log_worst_e
from serve.rollout.statistics.latency import FIRST_TOKEN_WEIGHTS, PER_TOKEN_WEIGHTS
from serve.rollout.statistics.planning import MOST_UNITS, first_enough, gross_rate
from serve.rollout.statistics.promotion import difference_limit, rate_limit
from serve.rollout.statistics.shadow import log_pairs_e
from serve.rollout.statistics.share import CONCENTRATIONS, FLOOR, log_equivalence_e, log_harm_e, null_share

SEED = 4_001
RUNS = 8_000


def test_the_null_share_follows_weights_base_and_margin() -> None:
    assert null_share(1_000) == pytest.approx(0.1)
    assert null_share(1_000, 0, 2.0) == pytest.approx(0.2 / 1.1)
    assert null_share(1_000, 4_000) == pytest.approx(1 / 6)
    assert null_share(5_000, 5_000) == 1.0


@pytest.mark.parametrize(
    ("canary", "stable", "null"), [(3, 20, 0.1), (7, 10, 0.1), (0, 5, 0.5), (2, 1, 0.01)]
)
def test_the_formula_is_a_mixture_of_truncated_priors(canary: int, stable: int, null: float) -> None:
    def one(concentration: float) -> float:
        prior = beta(concentration * null, concentration * (1 - null))

        def ratio(share: float) -> float:
            likelihood = (share / null) ** canary * ((1 - share) / (1 - null)) ** stable
            return float(likelihood * prior.pdf(share))

        return float(quad(ratio, null, 1, limit=200)[0] / prior.sf(null))

    expected = math.log(np.mean([one(concentration) for concentration in CONCENTRATIONS]))
    # Numerical integration reaches about seven digits.
    assert log_harm_e(canary, stable, null) == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_exact_expectation_under_the_null_is_one() -> None:
    # Failures come one by one; under the null each is the canary's with the null share.
    null, length = 0.1, 60
    canary = np.arange(length + 1)
    ways = np.array([math.comb(length, one) * null**one * (1 - null) ** (length - one) for one in canary])
    expected = np.exp(log_harm_e(canary, length - canary, null)) @ ways
    assert expected == pytest.approx(1.0, abs=1e-9)
    mirrored = np.exp(log_equivalence_e(canary, length - canary, null)) @ ways
    assert mirrored == pytest.approx(1.0, abs=1e-9)


def test_expectation_stays_below_one_when_the_canary_is_better() -> None:
    null, length = 0.1, 60
    canary = np.arange(length + 1)
    for true in (0.02, 0.05, 0.099):
        ways = np.array([math.comb(length, one) * true**one * (1 - true) ** (length - one) for one in canary])
        assert np.exp(log_harm_e(canary, length - canary, null)) @ ways < 1
        assert np.exp(log_equivalence_e(canary, length - canary, true / 2)) @ ways < 1


def _ramp_of_failures(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return log factors [step, look, run] of an identical canary, and their nulls, drifting base rate."""
    weights = np.array([100, 500, 1_000, 2_500, 5_000])
    looks, units = 8, 600
    factors = []
    for weight in weights:
        rates = random.uniform(0.002, 0.2, (looks, 1))  # both arms alike, wandering from look to look
        share = weight / 10_000
        canary = random.binomial(round(units * share), rates, (looks, RUNS)).cumsum(axis=0)
        stable = random.binomial(units - round(units * share), rates, (looks, RUNS)).cumsum(axis=0)
        factors.append(log_harm_e(canary, stable, share))
    return np.array(factors), weights


def test_a_ramp_with_wandering_rates_alarms_rarely_at_any_look() -> None:
    factors, weights = _ramp_of_failures(np.random.default_rng(SEED))
    worst = np.zeros(RUNS)
    for step in range(len(weights)):
        for look in range(factors.shape[1]):
            before = factors[:step, -1]
            worst = np.maximum(
                worst, carry(np.concatenate((before, factors[step, look][None])), len(weights))
            )
    for alpha in (0.05, 0.02, 0.005):
        # Four standard errors of a share of alpha among 8,000 runs.
        assert (worst >= -np.log(alpha)).mean() <= alpha + 4 * math.sqrt(alpha / RUNS)
    # At the end of the ramp: the mean of E, whose standard error is about 0.03 here.
    final = np.exp(carry(factors[:, -1], len(weights)))
    assert final.mean() <= 1.1


def test_more_failures_of_the_canary_never_lower_and_of_stable_never_raise() -> None:
    counts = np.arange(0, 400)
    for null in (0.01, 0.1, 0.5, 0.9):
        rising = log_harm_e(counts, 30, null)
        falling = log_harm_e(5, counts, null)
        assert (np.diff(rising) > 0).all()
        assert (np.diff(falling) < 0).all()
        assert (np.diff(log_equivalence_e(counts, 30, null)) < 0).all()


def test_large_counts_stay_finite() -> None:
    counts = np.array([0, 1, 1_000, 10**5, 10**6])
    canary, stable = np.meshgrid(counts, counts)
    for null in (1e-4, 0.01, 0.1, 0.5, 0.99):
        for log_e in (log_harm_e(canary, stable, null), log_equivalence_e(canary, stable, null)):
            assert np.isfinite(log_e).all()
            assert (log_e >= FLOOR).all()
    assert np.isfinite(rate_limit(counts, 10**6, 0.05, 1.0)).all()
    assert np.isfinite(log_imbalance_e([[10**6, 9 * 10**6]], [0.1, 0.9])).all()


def test_a_canary_that_is_much_better_keeps_an_e_value_above_zero() -> None:
    # 0.99^100000 is not a number; the exact value is about that of the prior's mass near 0.
    better = log_harm_e(0, [10**3, 10**4, 10**5], 0.01)
    assert (better > -25).all()
    assert (np.diff(better) < 0).all()
    steps = np.diff(log_harm_e(np.arange(200, 900), 20_000, 0.1))
    assert steps.min() > 0  # also where the tail becomes too small for a number
    assert np.abs(np.diff(steps)).max() < 0.01


def test_nothing_is_tested_where_one_arm_has_no_units() -> None:
    assert log_harm_e([5, 0], [0, 9], [1.0, 0.0]) == pytest.approx(0.0)


def test_carrying_is_the_mixture_over_the_step_at_which_harm_began() -> None:
    random = np.random.default_rng(SEED)
    for seen, starts in ((1, 1), (3, 5), (5, 5), (7, 5)):
        factors = random.normal(0, 2, (seen, 4))
        weights = start_weights(starts)
        expected = sum(weights[one] * np.exp(factors[one:].sum(axis=0)) for one in range(min(seen, starts)))
        expected = expected + weights[seen:].sum()
        assert carry(factors, starts) == pytest.approx(np.log(expected), abs=1e-12)
    assert carry(np.zeros((0, 2)), 3).tolist() == [0.0, 0.0]


def test_start_weights_add_up_to_one_and_nothing_waits_in_the_end() -> None:
    for starts in range(1, 9):
        assert start_weights(starts).sum() == pytest.approx(1.0)
        assert log_terms(starts, starts)[1][-1] == -np.inf


def test_weights_of_quantiles_add_up_to_one() -> None:
    for weights in (PER_TOKEN_WEIGHTS, FIRST_TOKEN_WEIGHTS):
        assert weights.sum() == pytest.approx(1.0)
        assert mix(np.zeros(3), weights) == pytest.approx(0.0)


def test_bets_on_equal_scores_do_not_win() -> None:
    random = np.random.default_rng(SEED)
    won = final = 0.0
    runs, alpha = 3_000, 0.05
    for _ in range(runs):
        drift = np.repeat(random.uniform(0.2, 0.9, 4), 60)  # everyone's scores wander alike
        scores = [
            UnitScore(float(at), bool(arm), 1_000, float(value))
            for at, (arm, value) in enumerate(
                zip(random.random(240) < 0.2, random.random(240) < drift, strict=True)
            )
        ]
        wealth = np.cumsum(log_growth(pair_scores(scores, 0.02).gaps))
        if wealth.size:
            won += wealth.max() >= -math.log(alpha)
            final += math.exp(wealth[-1]) / runs
    # Four standard errors of a share of 5 % among 3,000; the mean of the wealth within 0.1.
    assert won / runs <= alpha + 4 * math.sqrt(alpha / runs)
    assert final <= 1.1


def test_blocks_close_at_a_canary_score_that_follows_stable_ones() -> None:
    order = [(1, 1.0), (0, 0.5), (0, 0.7), (1, 0.2), (1, 0.4), (0, 0.9), (1, 0.6), (0, 0.1)]
    scores = [UnitScore(float(at), bool(arm), 500, value) for at, (arm, value) in enumerate(order)]
    blocks = pair_scores(scores, 0.1)
    assert blocks.gaps == pytest.approx([0.6 - 0.6 - 0.1, 0.9 - 0.5 - 0.1])
    assert blocks.weights == (500, 500)
    assert pair_scores([], 0.1).gaps.size == 0
    assert pair_scores(scores[:1], 0.1).gaps.size == 0


def test_stakes_are_fixed_before_the_gap_is_seen_and_stay_within_limits() -> None:
    random = np.random.default_rng(SEED)
    gaps = random.uniform(-1, 1, 50)
    growth = log_growth(gaps)
    changed = log_growth(np.concatenate((gaps[:-1], [-1.0])))
    assert growth[:-1].tolist() == changed[:-1].tolist()
    count = np.arange(50).astype(np.float64)
    bet = stake(count, gaps * count, np.ones(50))
    assert bet.min() >= 0
    assert bet.max() <= 0.5


def test_a_drop_of_a_tenth_is_found_in_about_as_many_ratings_as_published() -> None:
    # Five stars, a drop of 0.10 on 0 … 1: simulated elsewhere, 75–85 canary ratings at 10 %.
    random, needed = np.random.default_rng(SEED), []
    stars = np.array([0, 0.25, 0.5, 0.75, 1.0])
    for _ in range(400):
        arms = random.random(4_000) < 0.1
        values = np.clip(random.choice(stars, 4_000, p=[0.02, 0.03, 0.1, 0.35, 0.5]) - 0.15 * arms, 0, 1)
        scores = [
            UnitScore(float(at), bool(arm), 1_000, float(one))
            for at, (arm, one) in enumerate(zip(arms, values, strict=True))
        ]
        wealth = np.cumsum(log_growth(pair_scores(scores, 0.02).gaps))
        fired = np.flatnonzero(wealth >= -math.log(0.05))
        needed.append(fired[0] + 1 if fired.size else 10**6)
    assert 20 <= np.median(needed) <= 120


def test_units_in_the_wrong_arm_are_noticed_and_right_ones_are_not() -> None:
    random = np.random.default_rng(SEED)
    units = random.multinomial(20, [0.1, 0.8, 0.1], (200, 4_000)).cumsum(axis=0)
    log_e = log_imbalance_e(units, [0.1, 0.8, 0.1])
    assert (log_e.max(axis=0) >= math.log(100)).mean() <= 0.01 + 4 * math.sqrt(0.01 / 4_000)
    assert np.exp(log_e[-1]).mean() <= 1.1
    assert log_imbalance_e([200, 700, 100], [0.1, 0.8, 0.1]) > math.log(1_000)
    assert log_imbalance_e([10, 90, 0], [0.1, 0.9, 0.0]) == log_imbalance_e([10, 90], [0.1, 0.9])
    assert log_worst_e(np.zeros(0), 5) == 0.0
    assert log_worst_e(np.array([3.0, 1.0]), 5) == pytest.approx(3.0 - math.log(5))


def test_shadowed_pairs_count_who_failed_alone() -> None:
    pairs = {"both_ok": 400, "both_failed": 9, "canary_failed": 12, "stable_failed": 1, "dropped": 50}
    assert Evidence(pairs=pairs).compared == 422
    assert log_pairs_e(pairs) == log_harm_e(12, 1, 0.5) > math.log(20)
    assert log_pairs_e({}) == pytest.approx(0.0)


@pytest.mark.parametrize("rate", [0.001, 0.01, 0.05, 0.3, 0.9])
def test_limits_of_a_rate_cover_it_at_all_looks(rate: float) -> None:
    random, runs, alpha = np.random.default_rng(SEED), 4_000, 0.05
    units = np.unique(np.geomspace(5, 20_000, 60).astype(int))
    failures = random.binomial(np.diff(units, prepend=0)[:, None], rate, (units.size, runs)).cumsum(axis=0)
    # The mixture martingale at the true rate: outside the limits exactly when it exceeds 1/alpha.
    missed = (rate_limit(failures, units[:, None], alpha, 1.0) < rate).any(axis=0)
    missed |= (rate_limit(failures, units[:, None], alpha, 0.0) > rate).any(axis=0)
    assert missed.mean() <= alpha + 4 * math.sqrt(alpha / runs)


def test_the_limit_of_the_difference_is_reached_when_nothing_fails() -> None:
    assert difference_limit((0, 1_000), (0, 9_000), 0.05) < 0.0075
    assert difference_limit((0, 100), (0, 900), 0.05) > 0.01
    assert difference_limit((0, 0), (0, 0), 0.05) == 1.0
    # A canary that fails 3 % beside 1 % is never bounded by one point.
    assert difference_limit((3_000, 100_000), (1_000, 100_000), 0.05) > 0.02


def test_gross_harm_and_the_units_for_it_are_finite() -> None:
    assert gross_rate([0.0, 0.01, 0.1, 0.5]).tolist() == [0.2, 0.2, 0.5, 1.0]
    assert first_enough(lambda extra: extra >= 0) == 0
    assert first_enough(lambda extra: extra < 0) == MOST_UNITS
    for least in (1, 7, 50, 1_234, 99_999):
        found = first_enough(lambda extra, least=least: extra >= least)  # type: ignore[misc]
        assert least <= found <= max(least + 1, 1.06 * least)
