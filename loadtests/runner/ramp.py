"""What a rollout under load did: how fast it decided, whom it touched, and who still met it afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from loadtests.runner.actions import ActionEvent, RolloutChange
from loadtests.runner.metrics import ROLLOUT
from loadtests.runner.records import ERROR, OK
from loadtests.runner.results.columns import RequestColumns
from loadtests.runner.results.documents import ChangeDocument, RolloutDocument

_CANARY = "canary"
_OVER = ("promoted", "rolled_back", "closed")


def rollouts(
    columns: RequestColumns, changes: Sequence[RolloutChange], events: Sequence[ActionEvent]
) -> list[RolloutDocument]:
    """Return what became of each rollout that the run itself began, in order."""
    seen = dict.fromkeys((change.adapter, change.canary) for change in changes)
    return [
        _rollout(columns, [one for one in changes if (one.adapter, one.canary) == (adapter, canary)], events)
        for adapter, canary in seen
    ]


def rollout_figure(found: Sequence[RolloutDocument], metric: str, reason: str | None = None) -> float | None:
    """Return a figure of the first rollout (that moved for `reason`), None without one."""
    assert metric in ROLLOUT, metric
    wanted = (one for one in found if reason is None or reason in {change.reason for change in one.changes})
    first = next(wanted, None)
    return None if first is None else getattr(first, metric.removeprefix("rollout."))


def _rollout(
    columns: RequestColumns, changes: Sequence[RolloutChange], events: Sequence[ActionEvent]
) -> RolloutDocument:
    first = changes[0]
    begun = min(
        (one.at for one in events if one.action == "rollout" and one.subject == first.adapter),
        default=first.at,
    )
    over = next((one for one in changes if one.state in _OVER), None)
    until = over.at if over is not None else np.inf
    own = columns.is_("adapter", first.adapter) & (columns.sent >= begun)
    canary = own & columns.is_("arm", _CANARY)
    answers = canary & columns.ended_as(OK)
    back = _took(changes, "rolled_back")
    met = columns.sent[canary]
    during = own & columns.ended_as(OK) & (columns.sent < until)
    taken_back = over is not None and over.state == "rolled_back"
    late = float((met - until).max()) if taken_back and len(met) else 0.0
    detection = None
    if back is not None and len(met):
        detection = max(0.0, begun + back - float(met.min()))
    return RolloutDocument(
        adapter=first.adapter,
        canary=first.canary,
        state=changes[-1].state,
        seconds_to_promoted=_took(changes, "promoted"),
        seconds_to_rolled_back=back,
        detection_seconds=detection,
        canary_answers=int(answers.sum()),
        canary_errors=int((canary & columns.ended_as(ERROR)).sum()),
        canary_share=float((answers & during).sum() / during.sum()) if during.any() else None,
        late_canary_seconds=max(0.0, late),
        weights=len({one.weight for one in changes if one.weight}),
        setbacks=_setbacks(changes),
        changes=[
            ChangeDocument(
                at=one.at,
                canary=one.canary,
                state=one.state,
                weight=one.weight,
                reason=one.reason,
                sentence=one.sentence,
            )
            for one in changes
        ],
    )


def _setbacks(changes: Sequence[RolloutChange]) -> int:
    pairs = pairwise(changes)
    return sum(
        after.began != before.began or (after.weight < before.weight and after.state not in _OVER)
        for before, after in pairs
    )


def _took(changes: Sequence[RolloutChange], state: str) -> float | None:
    return next((one.moved - one.began for one in changes if one.state == state), None)
