"""One step's rows, grouped by slot: computed once per step, used by every module of the model.

Pure functions of the slot index of each row, where -1 means the base model. Invariant: no row of the
base model, and no index below 0, is in any group.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch  # noqa: TID253 - part of the kernel, imported by vLLM's worker only

WASTE = 2.0
"""Padded rows per real row up to which one padded batch beats a product per run."""


@dataclass(frozen=True, slots=True)
class Run:
    """The rows of one slot: `rows` is a slice where they lie side by side, else an index tensor (n,).

    `position` is the slot's place in `Step.slots`.
    """

    position: int
    rows: Any
    count: int


@dataclass(frozen=True, slots=True)
class Padded:
    """All runs as one batch (slots, longest): what to gather, what to keep, and where it goes back.

    `gather` (slots * longest,) holds row numbers, row 0 where it pads; `keep` (n,) holds the places of
    real rows in the flat batch, or None when there is no padding; `rows` (n,) their row numbers.
    """

    longest: int
    gather: torch.Tensor
    keep: torch.Tensor | None
    rows: torch.Tensor


@dataclass(frozen=True, slots=True)
class Step:
    """The groups of one step: `slots` are what weights are packed for, a superset of those in use."""

    indices: torch.Tensor
    slots: tuple[int, ...]
    runs: tuple[Run, ...]
    padded: Padded | None


def group(indices: torch.Tensor, previous: tuple[int, ...] = ()) -> Step:
    """Group the rows of `indices` (rows,) by slot.

    `previous` is the last step's `slots`: it is kept while it covers this step without holding more
    than twice the slots in use, so that a request that ends does not repack the weights.
    """
    counts = torch.bincount(indices + 1).tolist()
    counts[0:1] = []
    used = tuple(slot for slot, count in enumerate(counts) if count)
    slots = previous if set(used) <= set(previous) and len(previous) <= 2 * len(used) else used
    if not used:
        return Step(indices, previous, (), None)
    order = torch.argsort(indices, stable=True)[len(indices) - sum(counts) :]
    runs = tuple(_runs(order, slots, counts))
    return Step(indices, slots, runs, _pad(order, runs, len(slots)))


def _runs(order: torch.Tensor, slots: tuple[int, ...], counts: list[int]) -> list[Run]:
    runs, start = [], 0
    for slot, count in enumerate(counts):
        if count:
            rows = order[start : start + count]
            first, last = int(rows[0]), int(rows[-1])
            beside = last - first + 1 == count
            runs.append(Run(slots.index(slot), slice(first, last + 1) if beside else rows, count))
            start += count
    return runs


def _pad(order: torch.Tensor, runs: tuple[Run, ...], slots: int) -> Padded | None:
    longest = max(run.count for run in runs)
    total = len(order)
    if len(runs) == 1 or slots * longest > WASTE * total:
        return None
    places = torch.cat(
        [torch.arange(run.count) + run.position * longest for run in runs],
    )
    gather = torch.zeros(slots * longest, dtype=torch.long)
    gather[places] = order
    return Padded(longest, gather, None if len(places) == len(gather) else places, order)
