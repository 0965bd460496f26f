"""Sets of rows that belong together: equal, nearly equal, with the same input, of one group.

Owns the union of rows. Invariant: the result does not depend on the order in which pairs come.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Self

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]
Hashes = NDArray[np.uint64]


class Clusters:
    """A partition of the rows 0 … size-1; at first every row is alone. The lowest row names its set."""

    def __init__(self, size: int) -> None:
        self._parent = np.arange(size, dtype=np.int64)

    def join_pairs(self, left: Indices, right: Indices) -> None:
        """Put the rows of each pair into one set."""
        for one, other in zip(left.tolist(), right.tolist(), strict=True):
            first, second = sorted((self._find(one), self._find(other)))
            self._parent[second] = first

    def join_equal(self, keys: Hashes, rows: Indices | None = None) -> None:
        """Put the rows (all, or `rows`) with equal keys into one set."""
        rows = np.arange(keys.size) if rows is None else rows
        for first, others in equal_rows(keys[rows]):
            self.join_pairs(np.full(others.size, rows[first]), rows[others])

    @classmethod
    def of(cls, labels: Indices) -> Self:
        """Return the partition with these labels; each set must be named by its lowest row."""
        clusters = cls(0)
        clusters._parent = labels.copy()
        return clusters

    def labels(self) -> Indices:
        """Return for every row the lowest row of its set."""
        labels = self._parent
        while not np.array_equal(labels, labels[labels]):
            labels = labels[labels]
        self._parent = labels
        return labels

    def _find(self, row: int) -> int:
        parent = self._parent
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = int(parent[row])
        return row


def equal_rows(keys: Hashes) -> Iterable[tuple[int, Indices]]:
    """Yield (first, others) for every key that more than one row has; rows in ascending order."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]) if keys.size else np.zeros(0, np.int64)
    ends = np.r_[starts[1:], keys.size]
    for start, end in zip(starts[ends - starts > 1].tolist(), ends[ends - starts > 1].tolist(), strict=True):
        yield int(order[start]), order[start + 1 : end]
