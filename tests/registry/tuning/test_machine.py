from __future__ import annotations

import itertools

import pytest

from registry.errors import JobRefused
from registry.tuning.machine import JobEvent, JobState, next_holder, next_state

S, E = JobState, JobEvent
TABLE: dict[tuple[JobState | None, JobEvent], JobState] = {
    (None, E.CREATED): S.VALIDATING,
    (S.VALIDATING, E.CLAIMED): S.VALIDATING,
    (S.VALIDATING, E.RELEASED): S.VALIDATING,
    (S.VALIDATING, E.VALIDATED): S.QUEUED,
    (S.VALIDATING, E.PAUSED): S.PAUSED,
    (S.VALIDATING, E.CANCELLED): S.CANCELLED,
    (S.VALIDATING, E.FAILED): S.FAILED,
    (S.QUEUED, E.CLAIMED): S.RUNNING,
    (S.QUEUED, E.RELEASED): S.QUEUED,
    (S.QUEUED, E.PAUSED): S.PAUSED,
    (S.QUEUED, E.CANCELLED): S.CANCELLED,
    (S.QUEUED, E.SUCCEEDED): S.SUCCEEDED,
    (S.QUEUED, E.FAILED): S.FAILED,
    (S.RUNNING, E.CLAIMED): S.RUNNING,
    (S.RUNNING, E.RELEASED): S.QUEUED,
    (S.RUNNING, E.PAUSED): S.PAUSED,
    (S.RUNNING, E.CANCELLED): S.CANCELLED,
    (S.RUNNING, E.SUCCEEDED): S.SUCCEEDED,
    (S.RUNNING, E.FAILED): S.FAILED,
    (S.PAUSED, E.RELEASED): S.PAUSED,
    (S.PAUSED, E.RESUMED): S.QUEUED,
    (S.PAUSED, E.CANCELLED): S.CANCELLED,
    (S.PAUSED, E.SUCCEEDED): S.SUCCEEDED,
    (S.PAUSED, E.FAILED): S.FAILED,
}


@pytest.mark.parametrize(("state", "event"), list(itertools.product([None, *JobState], JobEvent)))
def test_every_event_in_every_state_leads_on_or_is_refused(state: JobState | None, event: JobEvent) -> None:
    if (state, event) in TABLE:
        assert next_state(state, event) is TABLE[state, event]
        return
    with pytest.raises(JobRefused) as refused:
        next_state(state, event, "job ftjob-x")
    assert refused.value.http_status == 400
    assert str(event) in str(refused.value)
    assert str(state or "not made yet") in str(refused.value)


def test_nothing_follows_an_end() -> None:
    assert {state for state in JobState if state.final} == {S.SUCCEEDED, S.FAILED, S.CANCELLED}
    assert not any(state.final for (state, _) in TABLE if state is not None)


@pytest.mark.parametrize("event", list(JobEvent))
def test_a_worker_keeps_a_job_in_hand_until_it_lets_go(event: JobEvent) -> None:
    held = next_holder("one", event, "two" if event is E.CLAIMED else "one")
    expected = {E.CLAIMED: "two", E.PAUSED: "one", E.RESUMED: "one", E.CANCELLED: "one"}.get(event)
    assert held == expected
