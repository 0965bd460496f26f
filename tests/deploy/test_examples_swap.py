"""The examples' verdict counts every failure and every wrong version, and nothing else."""

from __future__ import annotations

import pytest

from deploy.examples.clients import Asked, versions_named
from deploy.examples.verdict import StableMove, judge

# stable is 1 from the start, 2 from a command at 10 to 10.4, 1 again from 20 to 20.4.
MOVES = [StableMove(1, 0, 0), StableMove(2, 10, 10.4), StableMove(1, 20, 20.4)]


@pytest.mark.parametrize(
    ("began", "ended", "version", "wrong"),
    [
        (1, 2, 1, 0),
        (1, 2, 2, 1),  # before it was promoted
        (9.9, 10.5, 2, 0),  # open while it was promoted
        (9.9, 30, 1, 0),  # began before, so the old version may answer to the end
        (11.3, 12, 1, 0),  # a move is visible within a second of its command's end
        (11.5, 12, 1, 1),  # too late
        (12, 13, 2, 0),
        (21.5, 22, 2, 1),  # after the rollback
        (21.5, 22, 1, 0),
    ],
)
def test_a_version_is_wrong_when_it_could_not_have_been_stable(
    began: float, ended: float, version: int, wrong: int
) -> None:
    verdict = judge([Asked(began, began, ended, (version,))], MOVES)
    assert verdict.wrong_versions == wrong
    assert verdict.clean is (wrong == 0)


def test_names_that_disagree_are_a_wrong_answer() -> None:
    assert judge([Asked(12, 12, 13, (1, 2))], MOVES).wrong_versions == 1
    assert judge([Asked(12, 12, 13, (0, 2))], MOVES).wrong_versions == 1


def test_a_failure_is_counted_once_and_shown() -> None:
    verdict = judge([Asked(12, 12, 13, (), "boom"), Asked(12, 12, 13, (2,))], MOVES)
    assert (verdict.requests, verdict.failures, verdict.wrong_versions) == (2, 1, 0)
    assert verdict.first_error == "boom"
    assert not verdict.clean


def test_no_requests_are_no_proof() -> None:
    assert not judge([], MOVES).clean


def test_streams_that_were_open_during_a_move_are_counted() -> None:
    asked = [Asked(9, 9, 11, (1,)), Asked(12, 12, 13, (2,)), Asked(19.9, 19.9, 20.1, (2,))]
    assert judge(asked, MOVES).spanning == 2


def test_the_first_chunk_by_the_new_version_is_timed() -> None:
    asked = [
        Asked(10.1, 11.5, 12.0, (2,)),
        Asked(10.2, 11.0, 13.0, (2,)),
        Asked(9.0, 9.5, 10.9, (1,)),
        Asked(20.5, 21.5, 22.0, (1,)),
    ]
    promote, rollback = judge(asked, MOVES).seconds
    assert promote == pytest.approx(1.0)
    assert rollback == pytest.approx(1.5)


def test_every_name_of_an_answer_must_hold_a_version() -> None:
    assert versions_named("medical@2", "medical@2", "chatcmpl-1f-medical@2-s-ab") == (2,)
    assert versions_named("medical@2", "medical@3") == (2, 3)
    assert versions_named("medical@2", "chatcmpl-1f") == (0, 2)
