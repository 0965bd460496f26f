"""What rows are to each other: repeated, nearly repeated, leaked into another file, contradictory.

Owns the findings that need more than one row, from the columns and the sketches alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from train.dataset.checks.clusters import Clusters, equal_rows
from train.dataset.checks.findings import FindingLedger, unpack
from train.dataset.checks.scan import ScannedRows
from train.dataset.checks.sketches import BANDS, SIMILAR, Sketches
from train.dataset.columns import RowColumns
from train.dataset.records import CheckWatcher, RowKind

Indices = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Related:
    """The rows in sets: `same` are equal or nearly so, `bound` have the same input besides.

    `first` is the earliest row with the same content; `compared` how many rows were long enough, beside
    boilerplate, to be compared for nearness.
    """

    same: Indices
    bound: Indices
    first: Indices
    compared: int


def relate(columns: RowColumns, sketches: Sketches, progress: CheckWatcher) -> Related:
    """Return the sets of rows of one scan."""
    whole = columns["whole"]
    _, first_of, inverse = np.unique(whole, return_index=True, return_inverse=True)
    first = first_of[inverse]
    clusters = Clusters(len(columns))
    clusters.join_equal(whole)
    comparable = sketches.comparable() if len(columns) else np.zeros(0, dtype=bool)
    rows = np.flatnonzero(comparable & (first == np.arange(first.size)))
    labels = clusters.labels()
    progress.phase("comparing", BANDS)
    for band in range(BANDS):
        for left, right in sketches.similar_pairs(band, rows):
            new = labels[left] != labels[right]
            clusters.join_pairs(left[new], right[new])
            labels = clusters.labels()
        progress.advance(1)
    asked = np.flatnonzero(columns["question"])
    bound = Clusters.of(labels)
    bound.join_equal(columns["question"], asked)
    return Related(labels, bound.labels(), first, int(comparable.sum()))


def find_repeats(columns: RowColumns, related: Related, ledger: FindingLedger) -> None:
    """Report rows that repeat, or nearly repeat, an earlier row of their own file."""
    places = columns["place"]
    files = places >> np.uint64(40)
    lead = _first_of_file(related.same, files)
    exact = _first_of_file(related.first, files)
    liked = columns["liked"]
    for row in np.flatnonzero(lead != np.arange(len(columns))).tolist():
        if liked[exact[row]] != liked[row]:
            continue  # not a repeat but a contradiction, see find_rating_faults
        if exact[row] != row:
            ledger.add("D-DUPLICATE", int(places[row]), f"repeats {ledger.named(int(places[exact[row]]))}")
        else:
            like = ledger.named(int(places[lead[row]]))
            ledger.add(
                "D-NEAR", int(places[row]), f"is almost {like}, or a row that is (similarity {SIMILAR})"
            )


def find_leaks(columns: RowColumns, related: Related, ledger: FindingLedger) -> None:
    """Report rows whose content, or whose input, an earlier file has too."""
    places = columns["place"]
    for first, others in equal_rows(related.bound.astype(np.uint64)):
        origin = int(places[first])
        for row in others.tolist():
            place = int(places[row])
            if unpack(place)[0] != unpack(origin)[0]:
                same = related.first[row] == related.first[first]
                near = related.same[row] == related.same[first]
                how = "repeats" if same else "is almost" if near else "asks the same as"
                ledger.add("D-LEAK", place, f"{how} {ledger.named(origin)}")


def find_conflicts(columns: RowColumns, ledger: FindingLedger) -> None:
    """Report rows with the input of an earlier row and another answer."""
    rows = columns.of_kind(RowKind.SUPERVISED)
    rows = rows[columns["question"][rows] != 0]
    questions, answers, places = columns["question"][rows], columns["answer"][rows], columns["place"][rows]
    for first, others in equal_rows(questions):
        for row in others[answers[others] != answers[first]].tolist():
            fact = f"asks the same as {ledger.named(int(places[first]))} and answers differently"
            ledger.add("D-CONFLICT", int(places[row]), fact)


def find_mixtures(scan: ScannedRows, ledger: FindingLedger) -> None:
    """Report the rows of a file whose kind or form most of its rows do not have."""
    from train.dataset.columns import FORMS

    places, forms = scan.columns["place"], scan.columns["form"]
    kinds = np.array([list(RowKind).index(form.kind) for form in FORMS])[forms]
    for file in range(len(ledger.files)):
        rows = np.flatnonzero((places >> np.uint64(40)) == file)
        if not rows.size:
            continue
        kind = np.bincount(kinds[rows]).argmax()
        alike = rows[kinds[rows] == kind]
        form = FORMS[np.bincount(forms[alike]).argmax()]
        for row in rows[kinds[rows] != kind].tolist():
            fact = f"is {FORMS[forms[row]].value}, most rows are {form.value}"
            ledger.add("D-MIXED", int(places[row]), fact)
        for row in alike[forms[alike] != FORMS.index(form)].tolist():
            fact = f"is written as {FORMS[forms[row]].value}, most rows as {form.value}"
            ledger.add("D-FORMS", int(places[row]), fact)


def _first_of_file(labels: Indices, files: NDArray[np.uint64]) -> Indices:
    """Return for every row the earliest row of the same file with the same label."""
    _, first, inverse = np.unique(
        labels + files.astype(np.int64) * labels.size, return_index=True, return_inverse=True
    )
    found: Indices = first[inverse]
    return found
