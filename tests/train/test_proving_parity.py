"""The rule of parity: measured tolerances, and a base that can never pass for its adapter."""

from __future__ import annotations

import math
import random

import pytest

from train.proving.parity import SMALLEST_ROUNDING, ServedParity, compare
from train.proving.reference import BATCH_TOKENS, References, Scores, batches

PROMPTS, TOKENS = 14, 60


def noisy(scores: Scores, spread: float, seed: int) -> Scores:
    """Return the scores as another implementation rounds them; a spread of 0.07 is a mean of 0.056 nats."""
    rng = random.Random(seed)
    return [[value + rng.gauss(0, spread) for value in row] for row in scores]


def moved(scores: Scores, effect: float, seed: int = 9) -> Scores:
    """Return the scores of an adapter that changes them by `effect` nats, up and down."""
    rng = random.Random(seed)
    return [[value + effect * rng.uniform(-2, 2) for value in row] for row in scores]


def measured(effect: float, *, served_effect: float | None = None, spread: float = 0.07) -> ServedParity:
    """Return the figures of an adapter of that effect, served with another one."""
    rng = random.Random(1)
    base = [[-rng.expovariate(0.3) for _ in range(TOKENS)] for _ in range(PROMPTS)]
    adapter = moved(base, effect)
    references = References(adapter, base, noisy(adapter, spread, 2), noisy(base, spread, 3))
    shown = effect if served_effect is None else served_effect
    return compare(noisy(moved(base, shown), spread, 4), noisy(base, spread, 5), references)


@pytest.mark.parametrize("effect", [0.2, 1.0, 5.0])
def test_the_right_version_passes_however_much_it_changes(effect: float) -> None:
    found = measured(effect)
    assert found.passed, found.sentence
    assert found.difference < found.tolerance
    assert found.effect == pytest.approx(1.0, abs=0.1)
    assert found.tokens == PROMPTS * TOKENS


@pytest.mark.parametrize("effect", [0.001, 0.01, 0.05, 0.2, 1.0, 5.0])
def test_the_base_never_passes_however_little_the_adapter_changes(effect: float) -> None:
    found = measured(effect, served_effect=0.0)
    assert not found.passed
    assert found.effect == pytest.approx(0.0, abs=max(0.1, 0.01 / effect))


@pytest.mark.parametrize("share", [0.3, 2.0])
@pytest.mark.parametrize("effect", [0.2, 1.0])
def test_a_wrong_scale_does_not_pass(effect: float, share: float) -> None:
    assert not measured(effect, served_effect=effect * share).passed


def test_an_adapter_that_rounding_hides_cannot_be_proved() -> None:
    found = measured(0.002)
    assert not found.passed
    assert "not surely within 0.5 of all of it" in found.sentence


def test_another_base_is_named_as_such() -> None:
    base = [[-1.0, -2.0]]
    adapter = [[-3.0, -4.0]]
    found = compare(adapter, [[-1.5, -2.5]], References(adapter, base, adapter, base))
    assert found.base_difference == pytest.approx(0.5)
    assert found.fault.startswith("the served base is 0.5 nats per token from the root's base")


def test_where_nothing_is_rounded_the_tolerance_is_not_zero() -> None:
    found = measured(1.0, spread=0.0)
    assert found.rounding == 0.0
    assert found.tolerance == 2 * SMALLEST_ROUNDING
    assert found.passed


@pytest.mark.parametrize("broken", [math.nan, -math.inf])
def test_what_is_not_finite_does_not_pass(broken: float) -> None:
    scores = [[-1.0, -2.0]]
    found = compare([[broken, -1.0]], scores, References([[-2.0, -1.0]], scores, scores, scores))
    assert "not all finite" in found.fault


def test_an_adapter_that_is_its_base_does_not_pass() -> None:
    scores = [[-1.0, -2.0]]
    assert not compare(scores, scores, References(scores, scores, scores, scores)).passed


def test_batches_hold_every_prompt_once_and_stay_small() -> None:
    lengths = [5, 200, 7, 300, 6, 190, 900]
    found = batches(lengths)
    assert sorted(index for batch in found for index in batch) == list(range(7))
    assert len(found) < len(lengths)
    for batch in found:
        padded = len(batch) * max(lengths[index] for index in batch)
        assert padded <= BATCH_TOKENS or len(batch) == 1
