"""One step's rows, grouped by slot: computed once per step, used by every module of the model.

Pure functions of the slot index of each row, where -1 means the base model. Invariant: no row of the
base model, and no index below 0, is in any run or tile.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch  # noqa: TID253 - part of the kernel, imported by vLLM's worker only

Integers = npt.NDArray[np.int64]

TILE = 4
"""Rows of one slot that share every load of its weights."""


@dataclass(frozen=True, slots=True)
class SlotRows:
    """The rows of one slot: `rows` is a slice where they lie side by side, else an index tensor."""

    slot: int
    rows: slice | torch.Tensor


@dataclass(frozen=True, slots=True)
class StepGroups:
    """The groups of one step: `runs` for products by torch, and `plan`, the same for the kernel.

    The plan is [tiles, then for each tile its slot, its first place and its rows, then the row numbers
    in the order of their slots]; `address` and `size` are the plan's, which `StepGroups` keeps alive.
    """

    indices: torch.Tensor
    runs: tuple[SlotRows, ...]
    plan: Integers
    address: int
    size: int


def group(indices: torch.Tensor) -> StepGroups:
    """Group the rows of `indices` (rows,) int64 by slot."""
    slots = indices.numpy()
    order = np.argsort(slots, kind="stable")[np.count_nonzero(slots < 0) :]
    edges = np.flatnonzero(np.diff(slots[order], prepend=-1, append=-1)).tolist() if len(order) else []
    spans = list(pairwise(edges))
    runs = tuple(SlotRows(int(slots[order[first]]), _rows(order[first:last])) for first, last in spans)
    plan = _plan(slots, order, spans)
    return StepGroups(indices, runs, plan, plan.ctypes.data, len(plan))


def _rows(order: Integers) -> slice | torch.Tensor:
    first, last = int(order[0]), int(order[-1]) + 1
    return slice(first, last) if last - first == len(order) else torch.from_numpy(order.copy())


def _plan(slots: Integers, order: Integers, spans: list[tuple[int, int]]) -> Integers:
    tiles = [
        (slots[order[first]], place, min(TILE, last - place))
        for first, last in spans
        for place in range(first, last, TILE)
    ]
    flat = [number for tile in tiles for number in tile]
    return np.concatenate([np.array([len(tiles), *flat], np.int64), order])
