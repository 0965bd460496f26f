"""A run that diverges, learns nothing or breaks its weights is stopped; a healthy one is not."""

from __future__ import annotations

import math
from typing import Any

import pytest

from registry.errors import WardrobeError
from train.loop.guards import Guards, check_weights, overfitting, weight_sums
from train.loop.watching import TrainingEvaluation
from train.settings.keeping import GuardSettings


def feed(losses: list[float], settings: GuardSettings | None = None, **logs: float) -> None:
    guards = Guards("a", settings or GuardSettings())
    for step, loss in enumerate(losses, start=1):
        guards.note(step, loss, logs)


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_no_number_names_its_step(loss: float) -> None:
    with pytest.raises(WardrobeError, match=r"became (nan|inf) at step 3; lower learning_rate"):
        feed([1.0, 0.9, loss])


def test_a_loss_that_runs_away_stops_the_run() -> None:
    with pytest.raises(WardrobeError, match="runs away"):
        feed([2.0] * 12 + [30.0] * 20)
    feed([2.0] * 12 + [30.0] * 20, GuardSettings(divergence=None))


def test_batches_of_another_task_at_the_beginning_are_no_divergence() -> None:
    # Long general rows first, which the base knows, then the short rows of a new task.
    feed([0.8, 0.9, 0.8] + [4.0, 3.5] + [3.0, 2.6] * 10 + [2.0, 1.5] * 20)
    with pytest.raises(WardrobeError, match="runs away"):
        feed([3.0] * 20 + [1.0] * 30 + [9.0] * 30)


def test_a_loss_that_fell_to_nothing_may_rise_a_little() -> None:
    feed([4.0] + [0.001] * 200 + [0.3] * 50)


def test_noise_and_the_losses_of_reinforcement_do_not_stop_it() -> None:
    feed([2.0, 5.0, 1.0, 4.0, 0.5, 3.0] * 10)
    feed([0.01, -0.2, 0.3, -0.4, 5.0] * 10)


def test_no_gradient_or_no_margin_for_so_many_steps_is_no_learning() -> None:
    settings = GuardSettings(no_learning=3)
    with pytest.raises(WardrobeError, match="gradient was exactly 0 in 3 steps up to step 3"):
        feed([1.0] * 5, settings, grad_norm=0.0)
    with pytest.raises(WardrobeError, match="preference margin was exactly 0"):
        feed([0.693] * 5, settings, **{"grad_norm": 1.0, "rewards/margins": 0.0})
    feed([1.0] * 2, settings, grad_norm=0.0)
    feed([1.0] * 9, GuardSettings(no_learning=None), grad_norm=0.0)


def test_weights_must_be_finite_and_others_than_before() -> None:
    check_weights("a", {"w": (1.0, 2.0)}, {"w": (1.5, 2.0)})
    with pytest.raises(WardrobeError, match="changed no weight"):
        check_weights("a", {"w": (1.0, 2.0)}, {"w": (1.0, 2.0)})
    with pytest.raises(WardrobeError, match=r"1 of 2 trained tensors hold NaN or infinity \(w\)"):
        check_weights("a", {"w": (1.0, 2.0), "v": (0.0, 0.0)}, {"w": (math.nan, 2.0), "v": (1.0, 1.0)})


def test_the_sums_are_of_what_is_trained_only() -> None:
    import torch

    model: Any = torch.nn.Linear(2, 1)
    model.bias.requires_grad = False
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, -3.0]]))
    assert weight_sums(model) == {"weight": (-2.0, 4.0)}


def test_a_held_out_loss_that_rises_while_the_training_loss_falls_is_overfitting() -> None:
    falling = [2.0 - 0.1 * step for step in range(20)]
    rising = [TrainingEvaluation(5, 1.5), TrainingEvaluation(10, 1.4), TrainingEvaluation(20, 1.9)]
    warning = overfitting(falling, rising)
    assert warning is not None
    assert "rose from 1.400 (step 10) to 1.900 (step 20)" in warning
    assert overfitting(falling, rising[:2]) is None
    assert overfitting([2.0] * 20, rising) is None
    assert overfitting(falling, []) is None
