"""When an engine counts as hung: rows of looks, no clock."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from serve.watchdog.patience import WORKING_FACTOR, HangDetector, HealthSample

SILENT = HealthSample(1.0, late=True, working=False)
BUSY = HealthSample(1.0, late=True, working=True)
WELL = HealthSample(1.0, working=False)


def hung_after(looks: Iterable[HealthSample], hang_seconds: float = 10.0) -> tuple[int, str]:
    """How many looks it took, and why; (0, '') when it never came to that."""
    patience = HangDetector(hang_seconds)
    for number, look in enumerate(looks, 1):
        verdict = patience.take(look)
        if verdict is not None:
            return number, verdict.reason
    return 0, ""


def test_an_engine_that_answers_is_well_for_ever() -> None:
    assert hung_after([WELL] * 1000) == (0, "")
    assert hung_after([HealthSample(1.0, unfinished=9, progressed=True, working=True)] * 1000) == (0, "")


def test_one_that_neither_answers_nor_computes_is_hung_after_the_limit() -> None:
    assert hung_after([WELL] * 5 + [SILENT] * 20) == (
        5 + 10,
        "it has not answered for 10 s and computes nothing",
    )


def test_one_that_computes_may_take_ten_times_as_long_for_a_step() -> None:
    assert hung_after([BUSY] * 99 + [WELL] + [BUSY] * 99) == (0, "")
    assert hung_after([BUSY] * 200) == (10 * WORKING_FACTOR, "it has not answered for 100 s")


def test_where_nobody_can_see_what_its_processes_do_it_counts_as_computing() -> None:
    assert hung_after([HealthSample(1.0, late=True)] * 200)[0] == 10 * WORKING_FACTOR


def test_a_pause_in_its_computing_is_no_hang() -> None:
    assert hung_after(([SILENT] * 9 + [BUSY]) * 9) == (0, "")


@pytest.mark.parametrize("late", [False, True])
def test_a_stopped_process_is_a_hang_whether_the_engine_answers_or_others_compute(late: bool) -> None:
    stopped = HealthSample(1.0, late=late, working=True, stopped=("process 7 (VLLM::Worker)",))
    patience = HangDetector(10.0)
    assert [patience.take(stopped) for _ in range(9)] == [None] * 9
    verdict = patience.take(stopped)
    assert verdict is not None
    assert verdict.reason == "a process of it has been stopped for 10 s"
    assert verdict.detail == "process 7 (VLLM::Worker)"


def test_requests_of_which_nothing_is_made_are_a_hang_though_pulses_are_answered() -> None:
    waiting = HealthSample(1.0, unfinished=3, working=False)
    number, why = hung_after([waiting] * 20)
    assert (number, why) == (10, "it has made nothing of its requests for 10 s and computes nothing")
    spinning = HealthSample(1.0, unfinished=3, working=True)
    assert hung_after([spinning] * 200)[0] == 10 * WORKING_FACTOR


def test_anything_made_of_a_request_is_a_sign_of_life_though_no_pulse_comes_back() -> None:
    made = HealthSample(1.0, late=True, unfinished=3, progressed=True, working=True)
    assert hung_after(([BUSY] * 90 + [made]) * 5) == (0, "")


def test_a_load_may_take_the_time_that_loads_may_take() -> None:
    loading = HealthSample(1.0, late=True, working=False, loading_seconds=60.0)
    assert hung_after([loading] * 59) == (0, "")
    assert hung_after([loading] * 61)[0] == 60


def test_a_debugger_stops_the_count() -> None:
    held = HealthSample(1.0, late=True, working=False, held=True)
    assert hung_after([SILENT] * 9 + [held] * 1000) == (0, "")
    assert hung_after([SILENT] * 9 + [held] * 1000 + [SILENT])[0] == 9 + 1000 + 1


def test_the_age_is_that_of_the_oldest_missing_sign() -> None:
    patience = HangDetector(10.0)
    for look in (WELL, SILENT, SILENT, SILENT):
        patience.take(look)
    assert patience.age == 3
    patience.take(WELL)
    assert patience.age == 0
