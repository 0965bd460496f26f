"""One module's adapters, packed per slot: a slot that is rewritten is packed again, the others stay.

vLLM keeps per module and slice A (slots, 1, rank, in) and B (slots, 1, out, rank), padded to the server's
largest rank. A's rows are read where they are; B is turned to (rank, out) with only the ranks that are in
use. The kernel's table of addresses (`kernel`) names both. A slice whose B is zero has rank 0 there and
costs nothing; a module without any rank is left out before the kernel is called.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch  # noqa: TID253 - part of the kernel, imported by vLLM's worker only
from numba import njit

from serve.engine.cpu_lora.grouping import Integers
from serve.engine.cpu_lora.kernel import RANKS, VECTOR

Stacked = Sequence[torch.Tensor]
_ENTRY = 3
_HEAD = 3


class Module:
    """The packed slots of one module; holds the stacked tensors, so their identity stays theirs."""

    def __init__(self, a_stacked: Stacked, b_stacked: Stacked) -> None:
        self.a = tuple(a_stacked)
        self.b = tuple(b_stacked)
        self.slots = self.b[0].shape[0]
        self.widths = tuple(tensor.shape[-2] for tensor in self.b)
        self.inputs = self.a[0].shape[-1]
        self.fits_kernel = _fits_kernel(self.a, self.b)
        self.ranks = np.zeros((self.slots, len(self.b)), np.int64)
        self.adapted = False
        self._tensors = (*self.a, *self.b)
        self._versions: tuple[int, ...] = ()
        self._stale: set[int] = set()
        self._turned: dict[tuple[int, int], Integers] = {}
        self._table = self._empty_table()
        self.address, self.size = self._table.ctypes.data, len(self._table)

    def mark(self, slot: int) -> None:
        """Note that only `slot` is being rewritten; without a note all slots are packed again."""
        self._stale.add(slot)

    def refresh(self) -> bool:
        """Pack what was rewritten since the last call; return whether any slot adapts this module."""
        # Writing a slot counts up the tensor's version, in place, wherever it is done.
        versions = tuple([tensor._version for tensor in self._tensors])  # noqa: SLF001 - torch's only door to it
        if versions != self._versions:
            stale = self._stale if self._versions else ()
            for slot in stale or range(self.slots):
                self._pack(slot)
            self._versions, self._stale = versions, set()
            self.adapted = bool(self.ranks.any())
        return self.adapted

    def _pack(self, slot: int) -> None:
        for part, (a, b) in enumerate(zip(self.a, self.b, strict=True)):
            used, turned = turn(_bits(b[slot]))
            self.ranks[slot, part] = used
            if not self.fits_kernel:
                continue
            self._turned[slot, part] = turned
            place = _HEAD + _ENTRY * (slot * len(self.b) + part)
            rank = -(-used // RANKS) * RANKS
            self._table[place : place + _ENTRY] = (a[slot].data_ptr(), turned.ctypes.data, rank)

    def _empty_table(self) -> Integers:
        starts = np.cumsum((0, *self.widths[:-1]))
        spans = [int(number) for span in zip(starts, self.widths, strict=True) for number in span]
        entries = [0] * (_ENTRY * self.slots * len(self.b))
        return np.array([len(self.b), self.inputs, self.slots, *entries, *spans], np.int64)


class Watch:
    """Says whether a stack of weights holds anything; looks again only after it was written."""

    def __init__(self, stacked: torch.Tensor) -> None:
        self._stacked = stacked
        self._version = -1
        self._used = False

    def used(self) -> bool:
        """Return whether any slot holds more than zeros."""
        version = self._stacked._version  # noqa: SLF001 - torch's only door to it
        if version != self._version:
            self._version, self._used = version, bool(self._stacked.any())
        return self._used


def _fits_kernel(a: Stacked, b: Stacked) -> bool:
    return (
        all(tensor.dtype == torch.bfloat16 and tensor.is_contiguous() for tensor in (*a, *b))
        and a[0].shape[-1] % VECTOR == 0
        and all(tensor.shape[-2] % VECTOR == 0 and tensor.shape[-1] % RANKS == 0 for tensor in b)
    )


def _bits(b: torch.Tensor) -> Integers:
    """Return B (out, rank) of one slot as integers of its own size."""
    kind = {2: torch.int16, 4: torch.int32}[b.element_size()]
    matrix = b.view(b.shape[-2], b.shape[-1])
    return matrix.view(kind).numpy()  # type: ignore[no-any-return]


@njit(cache=True)
def turn(b: Integers) -> tuple[int, Integers]:
    """Return the rank that B (out, rank), given as signed integers, really uses, and B as (rank, out).

    The rank in use ends with its last column that is not all zero (or minus zero); the result is padded
    with zeros to a multiple of `RANKS`.
    """
    rows, columns = b.shape
    used, minus_zero = 0, np.iinfo(b.dtype).min
    for row in range(rows):
        for column in range(columns - 1, used - 1, -1):
            if b[row, column] != 0 and b[row, column] != minus_zero:
                used = column + 1
                break
    turned = np.zeros((-(-used // RANKS) * RANKS, rows), b.dtype)
    for row in range(rows):
        for column in range(used):
            turned[column, row] = b[row, column]
    return used, turned
