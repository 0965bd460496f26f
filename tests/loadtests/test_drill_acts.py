"""How the balancers drill judges what its clients saw; the drill itself runs real engines (`make drills`)."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from deploy.verify.load import CLOSING, StreamResult
from loadtests.drills.acts import Loss, Rolling, WeightChange, applied, lost


def answered(name: str, began: float, *, seconds: float = 1.0) -> StreamResult:
    text = f'data: {{"id":"chatcmpl-{name}"}}\n\n{CLOSING}'
    return StreamResult(status=200, text=text, began=began, seconds=seconds)


def said(*rows: tuple[str, float, str]) -> list[StreamResult]:
    return [StreamResult(session=session, began=began, arm=arm, seconds=0.2) for session, began, arm in rows]


def test_what_was_open_at_the_kill_and_nobody_else_answered_was_in_flight_on_the_lost_replica() -> None:
    before, of_other, of_lost, after = (
        answered("a", 0.0), answered("b", 4.5), answered("c", 4.8), answered("d", 5.1)
    )  # fmt: skip
    unanswered = StreamResult(status=500, began=4.9, seconds=0.3)
    streams = [before, of_other, of_lost, unanswered, after]
    # A request that another replica refused has no id in its log.
    assert lost(streams, 5.0, 5.0, {"a", "b", ""}) == [of_lost, unanswered]
    # The server went a moment after its kill, and took with it what had begun meanwhile.
    meanwhile = StreamResult(status=200, began=5.05, seconds=0.1)
    assert lost([*streams, meanwhile], 5.0, 5.08, {"a", "b"}) == [of_lost, unanswered, meanwhile]


@pytest.mark.parametrize(
    ("streams", "found"),
    [
        (said(("x", 9.0, "stable"), ("x", 10.2, "stable"), ("x", 10.9, "canary")), (pytest.approx(0.2), 1)),
        (said(("x", 9.0, "stable"), ("x", 10.2, "stable")), (0.0, 0)),
        # One replica follows at once and the other never: the session's arm changes to and fro.
        (
            said(("x", 9.0, "stable"), ("x", 10.1, "canary"), ("x", 12.8, "stable"), ("x", 13.0, "canary")),
            (pytest.approx(2.8), 1),
        ),
        # What begins after the next change says nothing of this one.
        (said(("x", 9.0, "stable"), ("x", 10.4, "canary"), ("x", 14.5, "stable")), (0.0, 1)),
        # Nor does what is open at a change.
        (said(("x", 9.9, "canary"), ("x", 10.4, "canary"), ("x", 13.9, "stable")), (0.0, 0)),
    ],
)
def test_the_last_request_under_the_old_weight_says_when_a_step_applied(
    streams: Sequence[StreamResult], found: tuple[float, int]
) -> None:
    assert applied(streams, 10.0, 14.0) == found


@pytest.mark.parametrize(
    "move",
    [
        WeightChange("advance", 1.2, 5, {"r0": 9, "r1": 7}, 0),
        WeightChange("advance", 0.2, 0, {"r0": 9, "r1": 7}, 0),
        WeightChange("advance", 0.2, 5, {"r0": 9, "r1": 0}, 0),
        WeightChange("advance", 0.2, 5, {"r0": 9, "r1": 7}, 1),
    ],
)
def test_a_step_is_not_kept_when_it_is_late_unseen_or_costs_an_answer(move: WeightChange) -> None:
    assert not move.kept
    assert WeightChange("advance", 0.2, 5, {"r0": 9, "r1": 7}, 0).kept


@pytest.mark.parametrize(
    ("in_flight", "failed", "elsewhere", "others", "left", "kept"),
    [
        (3, 3, 0, 9, 0, True),
        (3, 0, 0, 9, 0, True),
        (3, 4, 1, 9, 0, False),
        (3, 1, 1, 9, 0, False),
        (0, 0, 0, 9, 0, False),
        (3, 3, 0, 0, 0, False),
        (3, 3, 0, 9, 1, False),
    ],
)
def test_a_loss_may_cost_only_what_the_lost_replica_was_answering(
    in_flight: int, failed: int, elsewhere: int, others: int, left: int, *, kept: bool
) -> None:
    assert Loss(50, in_flight, failed, elsewhere, {}, others, 40.0, left).kept is kept


def test_a_rolling_restart_may_cost_nothing_and_must_replace_all() -> None:
    assert Rolling(50, 0, {}, 2, 90.0).kept
    assert not Rolling(50, 1, {"status 503": 1}, 2, 90.0).kept
    assert not Rolling(50, 0, {}, 1, 90.0).kept
