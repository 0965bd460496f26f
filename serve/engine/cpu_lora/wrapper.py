"""The grouped LoRA wrapper for vLLM's CPU platform: correct in mixed batches, one call per module.

It follows the interface of vLLM 0.32's `PunicaWrapperBase`, whose methods add an adapter's part to a
module's output in place. Shapes: `x` (rows, in), `y` (rows, out), stacked weights as in `packing`.
Invariants: rows of the base model are never written; an index below 0 never reaches a tensor.

Products are taken in float32, as vLLM's own buffer is; the sum is rounded to `y`'s type.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch  # noqa: TID253 - part of the kernel, imported by vLLM's worker only
from vllm.lora.layers.base_linear import BaseLinearLayerWithLoRA  # noqa: TID253 - as above
from vllm.lora.layers.logits_processor import LogitsProcessorWithLoRA  # noqa: TID253 - as above
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU  # noqa: TID253 - as above

from serve.engine.cpu_lora import compilation, kernel, operator, prompts
from serve.engine.cpu_lora.grouping import StepGroups, group
from serve.engine.cpu_lora.packing import Module, Watch

_log = logging.getLogger("vllm.wardrobe.cpu_lora")


class GroupedPunicaWrapper(PunicaWrapperCPU):
    """vLLM's LoRA operations over groups of rows instead of single rows."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # What a first run before any mapping reads; vLLM leaves it as the memory came.
        self._embeddings_indices.zero_()
        self._tokens = self._samples = group(torch.zeros(0, dtype=torch.long))
        self._modules: dict[int, Module] = {}
        self._watches: dict[int, Watch] = {}
        self._warned = False
        self._number = operator.number_of(self)

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
        # A copy: the buffer behind the view is written again before the next step.
        self._tokens = group(self.token_lora_indices.clone())
        self._samples = group(self.sampler_indices.clone())
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
        """Add `x @ A @ B * scale` of each row's slot to `y`, slice by slice of a merged module.

        Layers of a model call `operator.Site` instead, which ends in `add_module` too.
        """
        self.add_module(y, x, self.module_of(lora_a_stacked, lora_b_stacked), scale)

    def add_module(self, y: torch.Tensor, x: torch.Tensor, module: Module, scale: float) -> None:
        """Add the part of each row's slot in `module` to `y`."""
        step = self._tokens
        if x.shape[0] < len(step.indices):
            step = group(step.indices[: x.shape[0]])  # rows beyond the mapping belong to the base
        if step.runs and module.refresh():
            _add(y, x, module, step, scale)

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
        if not self._samples.runs:  # a request with an adapter is in both, so this holds for prompts, too
            return
        module = self.module_of((lora_a_stacked,), (lora_b_stacked,))
        if module.refresh():
            step = self._logits_of(x.shape[0])
            if step is not None and step.runs:
                _add(y, x, module, step, scale)

    def add_lora_embedding(
        self,
        y: torch.Tensor,
        x: torch.Tensor,
        lora_b_stacked: torch.Tensor,
        add_inputs: bool = True,  # noqa: ARG002 - vLLM's signature; it always adds
        **_unused: Any,
    ) -> None:
        """Add `x @ B` to `y`, where `x` (rows, rank) are the looked-up rows of A."""
        torch.ops.wardrobe.add_lora_embedding(y, x, lora_b_stacked, self._number)

    def add_embedding(self, y: torch.Tensor, x: torch.Tensor, b: torch.Tensor) -> None:
        """Do the work of `add_lora_embedding`."""
        if self._tokens.runs and self._watch(b).used():
            self.add_expand(y, (x,), (b,), (b.shape[-2],), 0)

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
        for buffer, stacked in zip(y, lora_a_stacked, strict=True):
            for run in self._tokens_of(x.shape[0]).runs:
                weights = _matrix(stacked, run.slot)
                inner = x[run.rows].float() @ weights.T * scale
                buffer[run.rows, : weights.shape[0]] = inner.to(buffer.dtype)

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
            target = y[:, offset : offset + width]
            for run in step.runs:
                weights = _matrix(stacked, run.slot)
                delta = (inputs[run.rows, : weights.shape[1]].float() @ weights.T).to(y.dtype)
                target[run.rows] = delta + target[run.rows] if add_inputs else delta
            offset += width

    def module_of(self, a_stacked: Sequence[torch.Tensor], b_stacked: Sequence[torch.Tensor]) -> Module:
        """Return the packed slots of a layer's stacked weights."""
        # The layer keeps these tensors for life, and `Module` holds them, so an id is never reused.
        module = self._modules.get(id(b_stacked[0]))
        if module is None:
            module = self._modules[id(b_stacked[0])] = Module(a_stacked, b_stacked)
        return module

    def _watch(self, stacked: torch.Tensor) -> Watch:
        # By address: compiled code may pass another object for it. `Watch` keeps the address taken.
        place = stacked.data_ptr()
        if place not in self._watches:
            self._watches[place] = Watch(stacked)
        return self._watches[place]

    def _tokens_of(self, rows: int) -> StepGroups:
        """Return the step's groups for `rows` rows: rows beyond the mapping belong to the base."""
        step = self._tokens
        return step if rows >= len(step.indices) else group(step.indices[:rows])

    def _logits_of(self, rows: int) -> StepGroups | None:
        """Return the groups of `rows` rows of logits, or None when nobody can know them.

        NOTE: for prompt log-probabilities vLLM 0.32 asks for the logits of one request's prompt while
        the mapping still lists one row per request of the step. Its own wrapper then stops the engine
        with a shape error as soon as two requests share a step. `prompts` tells which rows they are.
        """
        first = prompts.first_row()
        if first is not None:
            return group(self._tokens.indices[first : first + rows].contiguous())
        indices = self._samples.indices
        if rows == len(indices):
            return self._samples
        if bool((indices == indices[0]).all()):
            return group(indices[:1].expand(rows).contiguous())
        if not self._warned:
            self._warned = True
            _log.warning("prompt log-probabilities leave out adapted lm_head weights in a mixed step")
        return None


def _set_mapping(layer: Any, punica_wrapper: Any) -> None:
    grouped = isinstance(punica_wrapper, GroupedPunicaWrapper)
    layer.punica_wrapper = operator.place(layer, punica_wrapper) if grouped else punica_wrapper


def _set_logits_mapping(layer: Any, punica_wrapper: Any) -> None:
    layer.punica_wrapper = punica_wrapper
    if isinstance(punica_wrapper, GroupedPunicaWrapper):
        module = punica_wrapper.module_of((layer.lora_a_stacked,), (layer.lora_b_stacked,))
        operator.pack_as_written(layer, module)


# NOTE: how a linear layer learns its wrapper; here it learns its own place in it, because a compiled
# model can pass the name of a layer as a constant, and cannot pass what identifies a tensor.
BaseLinearLayerWithLoRA.set_mapping = _set_mapping
LogitsProcessorWithLoRA.set_mapping = _set_logits_mapping
compilation.mend_loading()
prompts.mend()


def _matrix(stacked: torch.Tensor, slot: int) -> torch.Tensor:
    matrix = stacked[slot]
    return matrix.view(matrix.shape[-2], matrix.shape[-1]).float()


def _add(y: torch.Tensor, x: torch.Tensor, module: Module, step: StepGroups, scale: float) -> None:
    if not (module.fits_kernel and y.dtype == x.dtype == torch.bfloat16 and y.stride(1) == x.stride(1) == 1):
        _add_runs(y, x, module, step, scale)
        return
    kernel.add(
        *(y.data_ptr(), y.stride(0), x.data_ptr(), x.stride(0)),
        *(step.address, step.size, module.address, module.size, scale, kernel.THREADS),
    )


def _add_runs(y: torch.Tensor, x: torch.Tensor, module: Module, step: StepGroups, scale: float) -> None:
    """Do the same with torch: for other types than bfloat16, and widths that are not whole vectors."""
    for run in step.runs:
        values, start = x[run.rows].float() * scale, 0
        for part, width in enumerate(module.widths):
            rank = int(module.ranks[run.slot, part])
            if rank:
                inner = values @ _matrix(module.a[part], run.slot)[:rank].T
                delta = inner @ _matrix(module.b[part], run.slot)[:, :rank].T
                y[run.rows, start : start + width] += delta.to(y.dtype)
            start += width
