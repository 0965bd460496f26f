"""Which of a step's tokens the logits of a prompt belong to, while vLLM asks for prompt log-probabilities.

vLLM 0.32 computes them after a step, one request after the other, and tells its LoRA layers nothing: the
mapping still lists one row per request. So an adapted `lm_head` was left out as soon as two requests shared
a step (vllm#51594). Owns the place of the prompt at hand; the wrapper groups its rows by it. One worker
process computes one step at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

_first: int | None = None


def first_row() -> int | None:
    """Return at which of the step's tokens the prompt at hand begins, None while answers are computed."""
    return _first


@contextmanager
def beginning_at(row: int) -> Iterator[None]:
    """Have logits belong to the step's tokens from `row` on, until the block ends."""
    global _first  # noqa: PLW0603 - what the layers in between do not pass on
    _first = row
    try:
        yield
    finally:
        _first = None


def mend() -> None:
    """Have vLLM's model runner tell where each prompt begins; calling it again changes nothing.

    NOTE: remove when vLLM maps these rows itself (vllm#51594).
    """
    from vllm.v1.worker.gpu_model_runner import GPUModelRunner

    original = GPUModelRunner._get_prompt_logprobs_dict  # noqa: SLF001 - no public place tells it
    if getattr(original, "tells_rows", False):
        return

    def told(runner: Any, hidden_states: Any, num_scheduled_tokens: Any) -> Any:
        if not runner.num_prompt_logprobs:
            return original(runner, hidden_states, num_scheduled_tokens)
        model = runner.model
        model.compute_logits = _telling(model.compute_logits, hidden_states)
        try:
            return original(runner, hidden_states, num_scheduled_tokens)
        finally:
            del model.compute_logits  # the class's own is there again

    told.tells_rows = True  # type: ignore[attr-defined]
    GPUModelRunner._get_prompt_logprobs_dict = told  # noqa: SLF001 - as above


def _telling(compute: Callable[..., Any], step: Any) -> Callable[..., Any]:
    """Return `compute` with the place of its argument, a slice of the step's hidden states, told."""
    row_bytes = step.stride(0) * step.element_size()

    def computed(states: Any, *more: Any, **named: Any) -> Any:
        with beginning_at((states.data_ptr() - step.data_ptr()) // row_bytes):
            return compute(states, *more, **named)

    return computed
