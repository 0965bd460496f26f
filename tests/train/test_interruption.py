"""The first signal stops a run; none disturbs what must be finished; the old handlers come back."""

from __future__ import annotations

import os
import signal

import pytest

from train.process.interruption import Interruption


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_interrupts_and_the_second_does_not_disturb_cleaning_up(
    number: signal.Signals,
) -> None:
    before = signal.getsignal(number)
    with Interruption():
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
        os.kill(os.getpid(), number)
        cleaned_up = True
    assert cleaned_up
    assert signal.getsignal(number) is before


def test_after_hold_a_signal_waits_for_nobody() -> None:
    with Interruption() as interruption:
        interruption.hold()
        os.kill(os.getpid(), signal.SIGTERM)
        finished = True
    assert finished


def test_after_defer_the_first_signal_is_only_noted_and_the_second_one_raises() -> None:
    told: list[bool] = []
    with Interruption() as interruption:
        interruption.defer(lambda: told.append(True))
        before = interruption.requested
        os.kill(os.getpid(), signal.SIGTERM)
        assert (before, interruption.requested) == (False, True)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
    assert told == [True]


def test_after_undefer_a_signal_raises_again_and_one_that_was_noted_raises_there() -> None:
    with Interruption() as interruption:
        interruption.defer(lambda: None)
        interruption.undefer()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
    with Interruption() as interruption:
        interruption.defer(lambda: None)
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            interruption.undefer()
