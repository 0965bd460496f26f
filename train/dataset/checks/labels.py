"""Short answers as labels: their balance, rare ones, and spellings that are one label.

Owns when answers count as labels: when nine of ten are short and at least three rows share one on average.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping

import numpy as np

from train.dataset.checks.findings import FindingLedger
from train.dataset.checks.scan import Labels
from train.dataset.columns import RowColumns, normal, text_hash
from train.dataset.records import RowKind

_LEAST_ROWS = 10
_SHORT_SHARE = 0.9
_ROWS_PER_LABEL = 3
_DOMINANT = 0.8
_RARE = 3


def labels_of(found: Labels) -> Counter[str]:
    """Return how often each label stands; empty where the answers are not labels."""
    counts = found.counts or Counter()
    rows = counts.total() + found.others
    are_labels = rows >= _LEAST_ROWS and counts.total() >= _SHORT_SHARE * rows
    return counts if are_labels and rows >= _ROWS_PER_LABEL * len(counts) else Counter()


def find_label_faults(columns: RowColumns, found: Labels, ledger: FindingLedger) -> None:
    """Report a dominant label, rare labels, and spellings of one label."""
    labels = labels_of(found)
    if not labels:
        return
    label, most = labels.most_common(1)[0]
    if most > _DOMINANT * labels.total():
        share = f"{most / labels.total():.0%} of {labels.total()} rows"
        _report(columns, ledger, "D-BALANCE", {label: f"{label!r} is the label of {share}"}, first_only=True)
    variants = _variants(labels)
    rare = {
        label: f"{label!r} is the label of {count} {'row' if count == 1 else 'rows'}"
        for label, count in labels.items()
        if count < _RARE and label not in variants
    }
    _report(columns, ledger, "D-RARE", rare)
    _report(columns, ledger, "D-SPELLING", variants)


def _variants(labels: Counter[str]) -> dict[str, str]:
    spellings: defaultdict[str, list[str]] = defaultdict(list)
    for label, _ in labels.most_common():
        spellings[normal(label).rstrip(".!")].append(label)
    return {
        other: f"{other!r} is written {usual!r} elsewhere"
        for usual, *others in spellings.values()
        for other in others
    }


def _report(
    columns: RowColumns,
    ledger: FindingLedger,
    rule: str,
    facts: Mapping[str, str],
    *,
    first_only: bool = False,
) -> None:
    if not facts:
        return
    by_hash = {text_hash(f"assistant: {label}"): fact for label, fact in facts.items()}
    rows = columns.of_kind(RowKind.SUPERVISED)
    answers = columns["answer"][rows]
    hits = rows[np.isin(answers, np.array(list(by_hash), dtype=np.uint64))]
    for row in hits[: 1 if first_only else None].tolist():
        ledger.add(rule, int(columns["place"][row]), by_hash[int(columns["answer"][row])])
