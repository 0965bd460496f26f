"""The best evaluation wins, the earlier of equal ones; too many without improvement end the run."""

from __future__ import annotations

import math

from train.loop.best import BestCheckpoint
from train.settings.keeping import EarlyStopping


def run(race: BestCheckpoint, *values: float) -> BestCheckpoint:
    for step, value in enumerate(values, start=1):
        race.note(step, value)
    return race


def test_the_lowest_loss_wins_and_the_earlier_of_two_equal_ones() -> None:
    assert run(BestCheckpoint(), 3.0, 1.0, 1.0, 2.0).best == (2, 1.0)


def test_the_highest_wins_where_higher_is_better() -> None:
    assert run(BestCheckpoint("accuracy", higher_is_better=True), 0.2, 0.9, 0.4).best == (2, 0.9)


def test_a_value_that_is_no_number_never_wins() -> None:
    assert run(BestCheckpoint(), math.nan, 2.0, math.nan).best == (2, 2.0)
    assert run(BestCheckpoint(), math.nan).best is None


def test_note_tells_whether_it_was_the_best_so_far() -> None:
    race = BestCheckpoint()
    assert [race.note(step, value) for step, value in enumerate([2.0, 1.0, 1.5])] == [True, True, False]


def test_it_is_over_after_patience_evaluations_without_enough_improvement() -> None:
    stopping = EarlyStopping(patience=2, minimum_improvement=0.1)
    assert not run(BestCheckpoint(stopping=stopping), 2.0, 1.0, 0.95).is_over
    assert run(BestCheckpoint(stopping=stopping), 2.0, 1.0, 0.95, 0.92).is_over
    assert not run(BestCheckpoint(stopping=stopping), 2.0, 1.0, 0.95, 0.85, 0.84).is_over
    assert not run(BestCheckpoint(), 1.0, 2.0, 3.0, 4.0).is_over


def test_a_race_that_goes_on_knows_what_was_before() -> None:
    race = BestCheckpoint(stopping=EarlyStopping(patience=2))
    race.restore([(1, 1.0), (2, 2.0)])
    assert race.best == (1, 1.0)
    race.note(3, 3.0)
    assert race.is_over
