"""What a look says: verdicts by stated rules, what is missing, and when the last step may promote."""

from __future__ import annotations

import math

import numpy as np
import pytest

from serve.rollout.policy import (
    ErrorMetric,
    FormatMetric,
    LatencyMetric,
    Policy,
    PolicyMetrics,
    Promotion,
    RampStep,
    Shadow,
)
from serve.rollout.recording.evidence import ArmCounts, Baseline, Cell, Evidence, UnitScore
from serve.rollout.statistics.judge import judge
from serve.rollout.statistics.judgement import Judgement, MetricCheck, MetricVerdict
from serve.rollout.statistics.planning import MOST_UNITS
from serve.rollout.statistics.share import log_harm_e

SEED = 4_002
WEIGHTS = (100, 500, 1_000, 2_500, 5_000)
POLICY = Policy(steps=tuple(RampStep(weight=weight, min_units=50, min_seconds=60) for weight in WEIGHTS))
ONE = Policy(steps=(RampStep(weight=1_000, min_units=50, min_seconds=60),))
KNOWN = Baseline(first_token=[0.2, 0.4, 1.0], per_token=[0.02, 0.04, 0.1], requests=500)


def arm(units: int, failures: int = 0, **values: object) -> ArmCounts:
    return ArmCounts(units=units, requests=units, failures=failures, **values)  # type: ignore[arg-type]


def named(found: Judgement, metric: str) -> MetricCheck:
    return next(check for check in found.checks if check.metric == metric)


def test_the_sentence_of_errors_has_its_numbers() -> None:
    evidence = Evidence((Cell(1_000, arm(1_080, 10), arm(120, 7)),))
    check = named(judge(ONE, evidence, Baseline()), "errors")
    assert check.sentence.startswith("7 of 120 canary units failed, 10 of 1,080 stable ones: e-value ")
    assert "of 50 needed" in check.sentence
    assert check.log_e == pytest.approx(float(log_harm_e(7, 10, 0.1)))
    assert check.canary == pytest.approx(7 / 120)
    assert check.stable == pytest.approx(10 / 1_080)


def test_half_of_ten_failing_is_harm_and_the_same_share_is_not() -> None:
    harm = judge(ONE, Evidence((Cell(1_000, arm(72), arm(8, 4)),)), Baseline())
    assert named(harm, "errors").verdict is MetricVerdict.FAIL
    assert harm.worst is MetricVerdict.FAIL
    fine = judge(ONE, Evidence((Cell(1_000, arm(900, 90), arm(100, 10)),)), Baseline())
    assert named(fine, "errors").verdict is MetricVerdict.PASS


def test_suspicion_lies_between_ten_and_the_limit() -> None:
    check = named(judge(ONE, Evidence((Cell(1_000, arm(300, 1), arm(30, 3)),)), Baseline()), "errors")
    assert math.log(10) <= check.log_e < math.log(50)
    assert check.verdict is MetricVerdict.SUSPICIOUS


@pytest.mark.parametrize("weight", WEIGHTS)
def test_when_nothing_fails_silence_becomes_a_pass_by_units(weight: int) -> None:
    policy = Policy(steps=(RampStep(weight=weight, min_units=50, min_seconds=60),))

    def look(units: int) -> MetricCheck:
        stable = units * (10_000 - weight) // weight
        return named(judge(policy, Evidence((Cell(weight, arm(stable), arm(units)),)), Baseline()), "errors")

    first = look(1)
    assert first.verdict is MetricVerdict.INSUFFICIENT
    assert 1 <= first.needed <= 60
    assert look(1 + first.needed).verdict is MetricVerdict.PASS
    assert look(1 + first.needed).needed == 0
    assert look(200).verdict is MetricVerdict.PASS


def test_before_anything_is_seen_all_is_insufficient_and_finite() -> None:
    found = judge(POLICY, Evidence(), Baseline())
    assert {check.verdict for check in found.checks} == {MetricVerdict.INSUFFICIENT}
    assert [check.metric for check in found.checks if check.required] == ["errors"]
    assert found.worst is MetricVerdict.INSUFFICIENT
    assert not found.certificate.reached
    for needed in [check.needed for check in found.checks] + [found.certificate.needed]:
        assert 1 <= needed <= MOST_UNITS


def test_metrics_without_data_block_nothing() -> None:
    found = judge(ONE, Evidence((Cell(1_000, arm(1_800), arm(200)),)), Baseline())
    assert found.worst is MetricVerdict.PASS
    for metric in ("per_token", "first_token", "feedback", "format"):
        check = named(found, metric)
        assert (check.verdict, check.required) == (MetricVerdict.INSUFFICIENT, False)
        assert check.needed >= 1
    assert "not known yet" in named(found, "per_token").sentence


def test_slower_answers_are_harm_and_only_with_a_baseline() -> None:
    slow = arm(300, per_token=(300, 260, 160, 60), first_token=(300, 150, 30, 3))
    usual = arm(2_700, per_token=(2_700, 1_350, 270, 27), first_token=(2_700, 1_350, 270, 27))
    evidence = Evidence((Cell(1_000, usual, slow),))
    found = judge(ONE, evidence, KNOWN)
    assert named(found, "per_token").verdict is MetricVerdict.FAIL
    assert named(found, "first_token").verdict is MetricVerdict.PASS
    assert named(found, "per_token").alpha == pytest.approx(0.0075)
    assert named(judge(ONE, evidence, Baseline()), "per_token").verdict is MetricVerdict.INSUFFICIENT


def test_latencies_that_are_missing_in_one_arm_are_not_compared() -> None:
    few = arm(300, per_token=(60, 60, 60, 60))
    usual = arm(2_700, per_token=(2_700, 1_350, 270, 27))
    check = named(judge(ONE, Evidence((Cell(1_000, usual, few),)), KNOWN), "per_token")
    assert check.verdict is MetricVerdict.INSUFFICIENT
    assert "not as units are split" in check.sentence


def test_three_cold_first_tokens_are_no_harm() -> None:
    cold = arm(40, first_token=(40, 20, 6, 3), per_token=(40, 20, 4, 0))
    usual = arm(760, first_token=(760, 380, 76, 0), per_token=(760, 380, 76, 8))
    policy = Policy(steps=(RampStep(weight=500, min_units=50, min_seconds=60),))
    check = named(judge(policy, Evidence((Cell(500, usual, cold),)), KNOWN), "first_token")
    assert check.verdict in {MetricVerdict.PASS, MetricVerdict.INSUFFICIENT}


def test_broken_forms_are_harm() -> None:
    evidence = Evidence((Cell(1_000, arm(900, judged=900), arm(100, judged=100, malformed=20)),))
    check = named(judge(ONE, evidence, Baseline()), "format")
    assert check.verdict is MetricVerdict.FAIL
    assert check.required


def test_lower_scores_are_harm_and_equal_ones_are_not() -> None:
    random = np.random.default_rng(SEED)

    def look(liked: float) -> MetricCheck:
        arms = random.random(3_000) < 0.1
        values = random.random(3_000) < np.where(arms, liked, 0.9)
        scores = tuple(
            UnitScore(float(at), bool(one), 1_000, float(value))
            for at, (one, value) in enumerate(zip(arms, values, strict=True))
        )
        evidence = Evidence((Cell(1_000, arm(2_700), arm(300)),), scores)
        return named(judge(ONE, evidence, Baseline()), "feedback")

    assert look(0.4).verdict is MetricVerdict.FAIL
    assert look(0.9).verdict is MetricVerdict.PASS


def test_units_in_the_wrong_arm_are_an_imbalance() -> None:
    odd = judge(ONE, Evidence((Cell(1_000, arm(700), arm(300)),)), Baseline())
    assert odd.imbalance.verdict is MetricVerdict.FAIL
    even = judge(ONE, Evidence((Cell(1_000, arm(905), arm(95)),)), Baseline())
    assert even.imbalance.verdict is MetricVerdict.PASS


def test_the_base_model_s_share_counts_for_neither_arm() -> None:
    policy = Policy(steps=(RampStep(weight=1_000, min_units=50, min_seconds=60),), observe_base=8_000 // 2)
    cell = Cell(1_000, arm(500, 5), arm(100, 1), base_weight=4_000, base=arm(400, 100))
    found = judge(policy, Evidence((cell,)), Baseline())
    assert named(found, "errors").log_e == pytest.approx(float(log_harm_e(1, 5, 1 / 6)))
    assert found.imbalance.verdict is MetricVerdict.PASS


def test_the_shadow_speaks_for_itself_and_is_carried_into_errors() -> None:
    policy = Policy(steps=ONE.steps, shadow=Shadow(pairs=100, alpha=0.01))
    pairs = {"both_ok": 78, "canary_failed": 11, "stable_failed": 1}
    found = judge(policy, Evidence(pairs=pairs), Baseline())
    assert named(found, "shadow").needed == 10
    assert named(found, "shadow").verdict is MetricVerdict.SUSPICIOUS
    # Two factors are foreseen: the shadow and one step; harm from the start has weight ½.
    expected = math.log(0.5 * math.exp(float(log_harm_e(11, 1, 0.5))) + 0.5)
    assert named(found, "errors").log_e == pytest.approx(expected)
    worse = judge(policy, Evidence(pairs={**pairs, "canary_failed": 30}), Baseline())
    assert named(worse, "shadow").verdict is MetricVerdict.FAIL


def test_when_nothing_ever_fails_the_bound_promotes() -> None:
    cell = Cell(5_000, arm(1_000), arm(1_000))
    certificate = judge(POLICY, Evidence((cell,)), Baseline()).certificate
    assert (certificate.reached, certificate.how) == (True, "bound")
    early = judge(POLICY, Evidence((Cell(5_000, arm(400), arm(400)),)), Baseline()).certificate
    assert not early.reached
    assert 550 <= early.needed <= 660


def test_enough_equal_failures_certify() -> None:
    cells = (Cell(2_500, arm(6_000, 180), arm(2_000, 55)),)
    certificate = judge(POLICY, Evidence(cells), Baseline()).certificate
    assert (certificate.reached, certificate.how) == (True, "certificate")


def test_a_canary_with_twice_the_failures_is_neither_certified_nor_bounded() -> None:
    cells = (Cell(5_000, arm(1_500, 30), arm(1_500, 62)),)
    certificate = judge(POLICY, Evidence(cells), Baseline()).certificate
    assert not certificate.reached
    assert 1 <= certificate.needed <= MOST_UNITS


def test_no_harm_promotes_only_where_the_policy_says_so() -> None:
    evidence = Evidence((Cell(5_000, arm(80), arm(80)),))
    assert not judge(POLICY, evidence, Baseline()).certificate.reached
    lenient = POLICY.model_copy(update={"promotion": Promotion(no_harm_units=60)})
    found = judge(lenient, evidence, Baseline()).certificate
    assert (found.reached, found.how) == (True, "no_harm")
    assert "not proof" in found.sentence
    suspicious = Evidence((Cell(5_000, arm(80), arm(80, 9)),))
    assert not judge(lenient, suspicious, Baseline()).certificate.reached


@pytest.mark.parametrize("failures", [(0, 0), (3, 0), (0, 40), (500, 500), (20, 1), (900, 1_000)])
@pytest.mark.parametrize("units", [1, 1_000, 1_000_000])
def test_nothing_is_ever_needed_without_end(failures: tuple[int, int], units: int) -> None:
    ours, theirs = (min(one, units) for one in failures)
    found = judge(POLICY, Evidence((Cell(5_000, arm(units, theirs), arm(units, ours)),)), KNOWN)
    for needed in [check.needed for check in found.checks] + [found.certificate.needed]:
        assert 0 <= needed <= MOST_UNITS
    for check in (*found.checks, found.imbalance):
        assert math.isfinite(check.log_e)


def test_an_identical_canary_is_called_harmful_within_alpha_over_a_whole_ramp() -> None:
    random, runs, alarms = np.random.default_rng(SEED), 250, 0
    policy = Policy(
        steps=POLICY.steps,
        metrics=PolicyMetrics(
            errors=ErrorMetric(alpha=0.05),
            latency=LatencyMetric(alpha=0.05),
            feedback=None,
            format=FormatMetric(),
        ),
    )
    for _ in range(runs):
        cells: list[Cell] = []
        for weight in WEIGHTS:
            arms = [
                _arm(random, 0.05, units) for units in (600 - 600 * weight // 10_000, 600 * weight // 10_000)
            ]
            cells.append(Cell(weight, arms[0], arms[1]))
            found = judge(policy, Evidence(tuple(cells)), KNOWN)
            if any(check.verdict is MetricVerdict.FAIL for check in found.checks):
                alarms += 1
                break
    # The alphas add up to 0.105; three standard errors above.
    assert alarms / runs <= 0.105 + 3 * math.sqrt(0.105 * 0.895 / runs)


def _arm(random: np.random.Generator, rate: float, mean: int) -> ArmCounts:
    units = int(random.poisson(mean))
    times = [int(one) for one in random.binomial(units, [0.5, 0.1, 0.01])]
    return arm(
        units,
        int(random.binomial(units, rate)),
        judged=units,
        malformed=int(random.binomial(units, 0.01)),
        per_token=(units, *times),
        first_token=(units, *times),
    )
