"""The grouped LoRA wrapper for vLLM's CPU platform: correct in mixed batches, one product per group.

It follows the interface of vLLM 0.32's `PunicaWrapperBase`, whose methods add an adapter's part to a
module's output in place. Shapes: `x` (rows, in), `y` (rows, out), stacked weights as in `packing`.
Invariants: rows of the base model are never written; an index below 0 never reaches a tensor.

Products are taken in float32, as vLLM's own buffer is; the sum is rounded to `y`'s type once.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch  # noqa: TID253 - part of the kernel, imported by vLLM's worker only
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU  # noqa: TID253 - as above

from serve.engine.cpu_lora.grouping import Padded, Step, group
from serve.engine.cpu_lora.packing import Module, Pack

_log = logging.getLogger("vllm.wardrobe.cpu_lora")
_NOTHING = Step(torch.zeros(0, dtype=torch.long), (), (), None)


class GroupedPunicaWrapper(PunicaWrapperCPU):
    """vLLM's LoRA operations over groups of rows instead of single rows."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._tokens = _NOTHING
        self._samples = _NOTHING
        self._modules: dict[int, Module] = {}
        self._warned = False

    def update_metadata(
        self,
        mapping: Any,
        lora_index_to_id: list[int | None],
        max_loras: int,
        vocab_size: int,
        **_unused: Any,
    ) -> None:
        """Group the next step's tokens and requests; vLLM calls it when either has changed."""
        self._update_base_metadata(mapping, lora_index_to_id, max_loras, vocab_size)
        self.is_prefill = mapping.is_prefill
        self._tokens = group(self.token_lora_indices, self._tokens.slots)
        self._samples = group(self.sampler_indices, self._samples.slots)
        self.no_lora = not self._tokens.runs

    def add_lora_linear(
        self,
        y: torch.Tensor,
        x: torch.Tensor,
        lora_a_stacked: tuple[torch.Tensor, ...],
        lora_b_stacked: tuple[torch.Tensor, ...],
        scale: float,
        *_slices: Any,
        **_unused: Any,
    ) -> None:
        """Add `x @ A @ B * scale` of each row's slot to `y`, slice by slice of a merged module."""
        step = self._tokens_of(x.shape[0])
        if step.runs:
            pack = self._module(lora_a_stacked, lora_b_stacked).pack(step.slots)
            if pack is not None:
                _add(y, x, pack, step, scale)

    def add_lora_logits(
        self,
        y: torch.Tensor,
        x: torch.Tensor,
        lora_a_stacked: torch.Tensor,
        lora_b_stacked: torch.Tensor,
        scale: float,
        **_unused: Any,
    ) -> None:
        """Add an adapted `lm_head` to logits `y` (requests, vocabulary and maybe padding)."""
        y, x = y.view(-1, y.shape[-1]), x.view(-1, x.shape[-1])
        pack = None
        if self._samples.runs:
            pack = self._module((lora_a_stacked,), (lora_b_stacked,)).pack(self._samples.slots)
        if pack is None:
            return
        step = self._samples_of(x.shape[0])
        if step is not None and step.runs:
            pack = self._module((lora_a_stacked,), (lora_b_stacked,)).pack(step.slots)
            if pack is not None:
                _add(y, x, pack, step, scale)

    def add_lora_embedding(
        self,
        y: torch.Tensor,
        x: torch.Tensor,
        lora_b_stacked: torch.Tensor,
        add_inputs: bool = True,
        **_unused: Any,
    ) -> None:
        """Add `x @ B` to `y`, where `x` (rows, rank) are the looked-up rows of A."""
        self.add_expand(y, (x,), (lora_b_stacked,), (lora_b_stacked.shape[-2],), 0, add_inputs)

    def add_shrink(
        self,
        y: tuple[torch.Tensor, ...] | torch.Tensor,
        x: torch.Tensor,
        lora_a_stacked: tuple[torch.Tensor, ...],
        scale: float,
        **_unused: Any,
    ) -> None:
        """Write `x @ A * scale` into the buffers `y` (slices of (rows, rank)); base rows stay."""
        x = x.view(-1, x.shape[-1])
        step = self._tokens_of(x.shape[0])
        for buffer, stacked in zip(y, lora_a_stacked, strict=True):
            for run in step.runs:
                weights = _matrix(stacked, step.slots[run.position])
                buffer[run.rows, : weights.shape[0]] = (x[run.rows].float() @ weights.T * scale).to(
                    buffer.dtype
                )

    def add_expand(
        self,
        y: torch.Tensor,
        x: tuple[torch.Tensor, ...] | torch.Tensor,
        lora_b_stacked: tuple[torch.Tensor, ...],
        output_slices: tuple[int, ...],
        offset_start: int = 0,
        add_inputs: bool = True,
        **_unused: Any,
    ) -> None:
        """Add (or write, without `add_inputs`) `x[i] @ B[i]` into slice i of `y`; base rows stay."""
        y = y.view(-1, y.shape[-1])
        step = self._tokens_of(x[0].shape[0])
        offset = offset_start
        for inputs, stacked, width in zip(x, lora_b_stacked, output_slices, strict=True):
            for run in step.runs:
                weights = _matrix(stacked, step.slots[run.position])
                delta = (inputs[run.rows, : weights.shape[1]].float() @ weights.T).to(y.dtype)
                target = y[:, offset : offset + width]
                if add_inputs:
                    delta += target[run.rows]
                target[run.rows] = delta
            offset += width

    def _module(self, a_stacked: Sequence[torch.Tensor], b_stacked: Sequence[torch.Tensor]) -> Module:
        # The layer keeps these tensors for life, and `Module` holds them, so an id is never reused.
        module = self._modules.get(id(b_stacked[0]))
        if module is None:
            module = self._modules[id(b_stacked[0])] = Module(a_stacked, b_stacked)
        return module

    def _tokens_of(self, rows: int) -> Step:
        """Return the step's groups for `rows` rows: rows beyond the mapping belong to the base."""
        if rows >= len(self._tokens.indices):
            return self._tokens
        return group(self._tokens.indices[:rows], self._tokens.slots)

    def _samples_of(self, rows: int) -> Step | None:
        """Return the groups of `rows` rows of logits, or None when nobody can know them.

        NOTE: for prompt log-probabilities vLLM 0.32 asks for the logits of one request's prompt while
        the mapping still lists one row per request of the step. Its own wrapper then stops the engine
        with a shape error as soon as two requests share a step.
        """
        indices = self._samples.indices
        if rows == len(indices):
            return self._samples
        if bool((indices == indices[0]).all()):
            return group(indices[:1].expand(rows), self._samples.slots)
        if not self._warned:
            self._warned = True
            _log.warning("prompt log-probabilities leave out adapted lm_head weights in a mixed step")
        return None


def _matrix(stacked: torch.Tensor, slot: int) -> torch.Tensor:
    matrix = stacked[slot]
    return matrix.view(matrix.shape[-2], matrix.shape[-1]).float()


def _add(y: torch.Tensor, x: torch.Tensor, pack: Pack, step: Step, scale: float) -> None:
    if step.padded is not None:
        _add_padded(y, x, pack, step.padded, scale)
    else:
        _add_runs(y, x, pack, step, scale)


def _add_padded(y: torch.Tensor, x: torch.Tensor, pack: Pack, padded: Padded, scale: float) -> None:
    slots, width = pack.a.shape[0], min(pack.b.shape[2], y.shape[1])
    batch = x.index_select(0, padded.gather).float().view(slots, padded.longest, -1)
    inner = torch.bmm(batch, pack.a)
    if scale != 1.0:
        inner *= scale
    delta = torch.bmm(inner, pack.b).view(slots * padded.longest, -1)
    if padded.keep is not None:
        delta = delta.index_select(0, padded.keep)
    y[:, :width].index_add_(0, padded.rows, delta[:, :width].to(y.dtype))


def _add_runs(y: torch.Tensor, x: torch.Tensor, pack: Pack, step: Step, scale: float) -> None:
    for run in step.runs:
        inner = x[run.rows].float() @ pack.a[run.position]
        if scale != 1.0:
            inner *= scale
        for block in pack.blocks:
            outer = slice(block.outer.start, min(block.outer.stop, y.shape[1]))
            weights = pack.b[run.position, block.inner, outer]
            y[run.rows, outer] += (inner[:, block.inner] @ weights).to(y.dtype)
