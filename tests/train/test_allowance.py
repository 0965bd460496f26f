"""Work that a stranger's input makes endless ends when its allowance is used up."""

from __future__ import annotations

import contextlib
import re
import signal

import pytest

from train.process.allowance import OutOfTime, processor_allowance


def match_for_ever() -> None:
    while True:
        with contextlib.suppress(Exception):
            re.search("^(a+)+$", "a" * 60 + "!")


def test_a_block_ends_within_a_pattern_and_where_everything_is_caught() -> None:
    before = signal.getsignal(signal.SIGPROF)
    with pytest.raises(OutOfTime), processor_allowance(0.05):
        match_for_ever()
    assert signal.getsignal(signal.SIGPROF) == before
    assert signal.getitimer(signal.ITIMER_PROF)[0] == 0


def test_a_block_that_is_done_in_time_is_left_alone() -> None:
    with processor_allowance(60):
        done = sum(range(1000))
    assert done == 499_500
    assert signal.getitimer(signal.ITIMER_PROF)[0] == 0
