"""A run over time: slices of equal width with counts and medians, and how many requests were in flight."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from loadtests.runner.records import CANCELLED, ERROR, OK
from loadtests.runner.results.columns import RequestColumns
from loadtests.runner.results.documents import Moment

_SLICES = 120
_SLIVER = 0.1
_WIDTHS = (0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3_600.0, 21_600.0)


def timeline(columns: RequestColumns, end: float) -> tuple[float, list[Moment]]:
    """Return the width of a slice in seconds, and at most 120 slices over [0, end)."""
    width = next((one for one in _WIDTHS if end / one <= _SLICES), _WIDTHS[-1])
    # A last slice of a few milliseconds would show as a moment without requests.
    count = max(1, int(np.ceil(end / width - _SLIVER)))
    place = np.minimum((columns.at / width).astype(int), count - 1)
    order = np.argsort(place, kind="stable").astype(np.int64)
    cuts = np.searchsorted(place[order], np.arange(count + 1))
    waiting = _in_flight(columns, count, width)
    return width, [
        _moment(columns, order[cuts[one] : cuts[one + 1]], one * width, int(waiting[one]))
        for one in range(count)
    ]


def peak_in_flight(columns: RequestColumns) -> int:
    """Return how many requests were in flight at most."""
    return int(_levels(columns)[1].max(initial=0))


def _in_flight(columns: RequestColumns, count: int, width: float) -> NDArray[np.int64]:
    """Return the most that were in flight within each slice."""
    times, levels = _levels(columns)
    most = np.zeros(count, dtype=np.int64)
    place = np.clip((times / width).astype(int), 0, count - 1)
    np.maximum.at(most, place, levels)
    # What was in flight at a slice's begin was so within it, though nothing changed there.
    before = np.searchsorted(times, np.arange(count) * width) - 1
    standing = np.where(before >= 0, levels[before], 0) if len(levels) else most
    return np.maximum(most, standing)


def _levels(columns: RequestColumns) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the times at which something was sent or ended, ascending, and how many were then in flight."""
    times = np.concatenate([columns.sent, columns.ended])
    steps = np.repeat(np.array([1, -1], dtype=np.int64), len(columns))
    # At one moment, what ends does so before what begins.
    order = np.lexsort((steps, times))
    return times[order], np.cumsum(steps[order])


def _moment(columns: RequestColumns, rows: NDArray[np.int64], at: float, in_flight: int) -> Moment:
    ok = columns.ended_as(OK)[rows]
    due = columns.at[rows]
    first = ((columns.first[rows] - due) * 1_000)[ok]
    whole = ((columns.ended[rows] - due) * 1_000)[ok]
    first = first[np.isfinite(first)]
    return Moment(
        at=at,
        due=len(rows),
        ok=int(ok.sum()),
        errors=int(columns.ended_as(ERROR)[rows].sum()),
        cancelled=int(columns.ended_as(CANCELLED)[rows].sum()),
        in_flight=in_flight,
        ttft_p50_ms=float(np.median(first)) if len(first) else None,
        e2e_p50_ms=float(np.median(whole)) if len(whole) else None,
        e2e_p95_ms=float(np.percentile(whole, 95)) if len(whole) else None,
    )
