"""The whole check of one or more files, from bytes to findings and counts.

Owns the order: one pass over the rows, then what rows are to each other. Memory: 64 bytes a row and 8
bytes a finding, beside one batch and the tokenizer; disk: 420 bytes a row in a temporary folder.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from registry.errors import UsageError
from train.dataset.checks import labels, lengths, pairs, relations
from train.dataset.checks.acceptance import NOTHING, Acceptance
from train.dataset.checks.findings import Finding, FindingLedger, Severity, pack
from train.dataset.checks.first import FirstRow, first_row
from train.dataset.checks.lengths import Lengths
from train.dataset.checks.relations import Related
from train.dataset.checks.scan import ScannedRows, Scanner, open_sketches
from train.dataset.columns import FORMS, RowColumns
from train.dataset.forms.mapping import PLAIN, RowMapping, require_columns
from train.dataset.records import CheckWatcher, Unwatched
from train.dataset.rendering import Rendering
from train.dataset.room import room
from train.dataset.sources import Where, size_of


@dataclass(frozen=True, slots=True)
class FileCount:
    """One file: bytes, readable rows, and how many are written in which form."""

    path: str
    size_bytes: int
    rows: int
    forms: dict[str, int]


@dataclass(frozen=True, slots=True)
class CheckSummary:
    """Counts over all files.

    `first` is how the first row of each file was understood. `sets` are rows after joining equal and nearly
    equal ones; `compared` rows were long enough for that. `length_bias` is Cohen's d of chosen against
    rejected. Token counts are None without a tokenizer.
    """

    files: tuple[FileCount, ...]
    first: tuple[FirstRow, ...]
    rows: int
    unreadable: int
    distinct: int
    sets: int
    compared: int
    questions: Lengths | None
    answers: Lengths | None
    tokens: Lengths | None
    learnt: Lengths | None
    turns: dict[int, int]
    labels: dict[str, int]
    length_bias: float | None


@dataclass(frozen=True, slots=True)
class Checked:
    """The result of a check; `acceptance` is what a person has accepted beforehand."""

    ledger: FindingLedger
    summary: CheckSummary
    acceptance: Acceptance = NOTHING

    @property
    def findings(self) -> list[Finding]:
        """Return the findings, errors first."""
        return self.ledger.findings

    @property
    def ok(self) -> bool:
        """Return False when any finding is an error that was not accepted."""
        return not any(
            found.rule.severity is Severity.ERROR and self.accepted(found) < found.count
            for found in self.findings
        )

    def accepted(self, found: Finding) -> int:
        """Return how often `found` was accepted."""
        rule = found.rule.id
        if rule in self.acceptance.kinds:
            return found.count
        places = found.places if self.acceptance.rows else ()
        return sum(self.acceptance.covers(rule, *self.ledger.locate(place)) for place in places)


@room()
def check_files(
    paths: Sequence[Where],
    rendering: Rendering | None = None,
    progress: CheckWatcher | None = None,
    reading: RowMapping = PLAIN,
    acceptance: Acceptance = NOTHING,
) -> Checked:
    """Check `paths`, which are the parts of one data set, all read as `reading` says.

    `acceptance` is what a person has accepted.

    Raises: UsageError: when a file cannot be read, or holds no row at all.
    """
    for path in paths:
        require_columns(path, reading)
    ledger = FindingLedger([str(path) for path in paths])
    progress = progress or Unwatched()
    progress.phase("checking", size_of(paths), in_bytes=True)
    with open_sketches(paths, reading) as sketches:
        scan = Scanner(ledger, rendering, reading).scan(paths, sketches, progress.advance)
        if not len(scan.columns) and not scan.unreadable:
            raise UsageError(str(paths[0]), "holds no rows", "write one JSON object per line")
        related = relations.relate(scan.columns, scan.sketches, progress)
    _find_all(scan, related, ledger)
    return Checked(ledger, _summarise(paths, scan, related, reading), acceptance)


def _find_all(scan: ScannedRows, related: Related, ledger: FindingLedger) -> None:
    relations.find_mixtures(scan, ledger)
    relations.find_repeats(scan.columns, related, ledger)
    relations.find_leaks(scan.columns, related, ledger)
    relations.find_conflicts(scan.columns, ledger)
    pairs.find_pair_faults(scan.columns, ledger)
    pairs.find_rating_faults(scan.columns, ledger)
    labels.find_label_faults(scan.columns, scan.labels, ledger)
    lengths.find_outliers(scan.columns, ledger)


def _summarise(
    paths: Sequence[Where], scan: ScannedRows, related: Related, reading: RowMapping
) -> CheckSummary:
    columns = scan.columns
    turns, counts = np.unique(columns["turns"], return_counts=True)
    return CheckSummary(
        files=tuple(_count(columns, number, path) for number, path in enumerate(paths)),
        first=tuple(one for path in paths if (one := first_row(path, reading)) is not None),
        rows=len(columns),
        unreadable=scan.unreadable,
        distinct=int(np.unique(columns["whole"]).size),
        sets=int(np.unique(related.same).size),
        compared=related.compared,
        questions=lengths.measure(columns["question_chars"], "characters"),
        answers=lengths.measure(columns["answer_chars"], "characters"),
        tokens=lengths.measure(columns["tokens"], "tokens"),
        learnt=lengths.measure(columns["learnt"], "tokens"),
        turns=dict(zip(turns.tolist(), counts.tolist(), strict=True)),
        labels=dict(labels.labels_of(scan.labels).most_common()),
        length_bias=pairs.length_bias(columns),
    )


def _count(columns: RowColumns, number: int, path: Where) -> FileCount:
    places = columns["place"]
    inside = (places >= pack(number, 0)) & (places < pack(number + 1, 0))
    forms = Counter(FORMS[index].value for index in columns["form"][inside].tolist())
    return FileCount(str(path), size_of([path]), int(inside.sum()), dict(forms.most_common()))
