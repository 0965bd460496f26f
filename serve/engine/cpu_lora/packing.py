"""One module's adapters as two dense float32 operands, kept until a slot is rewritten.

vLLM keeps per module and slice `A` (slots, 1, rank, in) and `B` (slots, 1, out, rank), padded to the
server's largest rank. Packed for the slots of a step: `a` (S, in, K) with the slices side by side and
`b` (S, K, out) with the slices on the diagonal, where K is the sum of the ranks that are really used. A
module whose B is zero in every slot of the step has no pack and costs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch  # noqa: TID253 - part of the kernel, imported by vLLM's worker only

Stacked = Sequence[torch.Tensor]


@dataclass(frozen=True, slots=True)
class Block:
    """One slice's place: columns of `a` and rows of `b`, and columns of `b`."""

    inner: slice
    outer: slice


@dataclass(frozen=True, slots=True)
class Pack:
    """The operands for one module and one set of slots; `blocks` leaves out slices that are zero."""

    a: torch.Tensor
    b: torch.Tensor
    blocks: tuple[Block, ...]


class Module:
    """The packs of one module; holds the stacked tensors, so their identity stays theirs."""

    def __init__(self, a_stacked: Stacked, b_stacked: Stacked) -> None:
        self._a = [_matrices(tensor) for tensor in a_stacked]
        self._b = [_matrices(tensor) for tensor in b_stacked]
        self._tensors = (*a_stacked, *b_stacked)
        self._versions: tuple[int, ...] = ()
        self._slots: tuple[int, ...] | None = None
        self._pack: Pack | None = None

    def pack(self, slots: tuple[int, ...]) -> Pack | None:
        """Return the operands for `slots`, or None when no slice of the module is adapted in them."""
        # Writing a slot counts up the tensor's version, in place, wherever it is done.
        versions = tuple(tensor._version for tensor in self._tensors)  # noqa: SLF001 - torch's only door to it
        if versions != self._versions or slots != self._slots:
            self._versions, self._slots, self._pack = versions, slots, self._build(list(slots))
        return self._pack

    def _build(self, slots: list[int]) -> Pack | None:
        wide = [tensor[slots].float() for tensor in self._b]
        ranks = [used_rank(tensor) for tensor in wide]
        if not any(ranks):
            return None
        a = torch.cat([tensor[slots, :rank] for tensor, rank in zip(self._a, ranks, strict=True)], dim=1)
        b = torch.zeros(len(slots), sum(ranks), sum(tensor.shape[1] for tensor in wide))
        blocks, inner, outer = [], 0, 0
        for tensor, rank in zip(wide, ranks, strict=True):
            block = Block(slice(inner, inner + rank), slice(outer, outer + tensor.shape[1]))
            if rank:
                b[:, block.inner, block.outer] = tensor[:, :, :rank].transpose(1, 2)
                blocks.append(block)
            inner, outer = block.inner.stop, block.outer.stop
        return Pack(a.float().transpose(1, 2).contiguous(), b, tuple(blocks))


def used_rank(b: torch.Tensor) -> int:
    """Return the rank that `b` (slots, out, rank) float32 really uses: its last column not all zero."""
    # The largest magnitude per column is ten times faster than comparing, and lets NaN through.
    used = b.abs().amax(dim=(0, 1)).ne(0).nonzero()
    return int(used[-1]) + 1 if len(used) else 0


def _matrices(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.view(tensor.shape[0], tensor.shape[-2], tensor.shape[-1])
