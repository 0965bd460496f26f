"""Sanity of preference pairs and ratings.

Owns what makes a pair teach nothing, or the wrong thing: equal answers, contradictions, a bias in length.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from train.dataset.checks.clusters import equal_rows
from train.dataset.checks.findings import FindingLedger
from train.dataset.columns import RowColumns
from train.dataset.records import RowKind

# Cohen's convention: 0.5 is a medium effect.
BIAS = 0.5
_LEAST_PAIRS = 10
_ONE_SIDED = 0.9
_MIX = np.uint64(0x9E3779B97F4A7C15)


def find_pair_faults(columns: RowColumns, ledger: FindingLedger) -> None:
    """Report pairs that are equal or contradict each other, and a bias of all pairs in length."""
    rows = columns.of_kind(RowKind.PREFERENCE)
    if not rows.size:
        return
    places = columns["place"][rows]
    question, chosen, rejected = (columns[name][rows] for name in ("question", "answer", "rejected"))
    for row in np.flatnonzero(chosen == rejected).tolist():
        ledger.add("D-PREF-SAME", int(places[row]), "chosen and rejected are the same text")
    forward = (question * _MIX + chosen) * _MIX + rejected
    backward = (question * _MIX + rejected) * _MIX + chosen
    order = np.argsort(forward, kind="stable")
    at = order[np.minimum(np.searchsorted(forward[order], backward), order.size - 1)]
    contradicts = (forward[at] == backward) & (chosen != rejected)
    for row in np.flatnonzero(contradicts).tolist():
        other = ledger.named(int(places[at[row]]))
        ledger.add("D-PREF-CONFLICT", int(places[row]), f"prefers what {other} rejects")
    _find_length_bias(columns, rows, ledger)


def find_rating_faults(columns: RowColumns, ledger: FindingLedger) -> None:
    """Report answers rated both ways, and ratings that are nearly all the same."""
    rows = columns.of_kind(RowKind.KTO)
    if not rows.size:
        return
    places, liked, whole = (columns[name][rows] for name in ("place", "liked", "whole"))
    for first, others in equal_rows(whole):
        for row in others[liked[others] != liked[first]].tolist():
            fact = f"rates the same answer unlike {ledger.named(int(places[first]))}"
            ledger.add("D-KTO-CONFLICT", int(places[row]), fact)
    share = float(liked.mean())
    if rows.size >= _LEAST_PAIRS and max(share, 1 - share) > _ONE_SIDED:
        rare = np.flatnonzero(liked == (share < 0.5))
        where = int(places[rare[0] if rare.size else 0])
        ledger.add("D-KTO-BALANCE", where, f"{share:.0%} of {rows.size} ratings are true")


def cohens_d(left: NDArray[np.float64], right: NDArray[np.float64]) -> float:
    """Return the difference of the means in pooled standard deviations; 0 where nothing varies."""
    spread = math.sqrt((left.var(ddof=1) + right.var(ddof=1)) / 2) if left.size > 1 else 0.0
    return float(left.mean() - right.mean()) / spread if spread else 0.0


def length_bias(columns: RowColumns) -> float | None:
    """Return Cohen's d of the lengths, chosen against rejected; None with fewer than 10 pairs."""
    rows = columns.of_kind(RowKind.PREFERENCE)
    if rows.size < _LEAST_PAIRS:
        return None
    chosen, rejected = columns["answer_chars"][rows], columns["rejected_chars"][rows]
    return cohens_d(chosen.astype(float), rejected.astype(float))


def _find_length_bias(columns: RowColumns, rows: NDArray[np.int64], ledger: FindingLedger) -> None:
    found = length_bias(columns)
    if found is None or abs(found) < BIAS:
        return
    gap = columns["answer_chars"][rows].astype(int) - columns["rejected_chars"][rows]
    worst = rows[int(np.argmax(gap if found > 0 else -gap))]
    which = "longer" if found > 0 else "shorter"
    fact = f"chosen answers are {which} (Cohen's d {found:+.2f} over {rows.size} pairs), here the most"
    ledger.add("D-PREF-LENGTH", int(columns["place"][worst]), fact)
