"""What adapters cost in memory, by the base model's shapes: pure arithmetic.

vLLM keeps A (rank, in) and B (out, rank) of every module that can take a LoRA, for each slot, adapted or not,
and once more each adapter in the host's memory. Numbers have two bytes: vLLM loads adapters as bfloat16 or
float16.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

NUMBER_BYTES = 2
VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""The values that vLLM 0.32 takes for `max_lora_rank`."""

Modules = Mapping[str, tuple[int, int]]
"""A base's modules: full name to (out, in), as `registry.records.BaseModelInfo.modules`."""


def slot_bytes(modules: Modules, rank: int, targets: Collection[str] | None = None) -> int:
    """Return the memory of one slot of `rank`; of the modules that end in one of `targets`, where given."""
    return rank * NUMBER_BYTES * sum(out + into for out, into in _chosen(modules, targets))


def packed_bytes(modules: Modules, rank: int, targets: Collection[str] | None = None) -> int:
    """Return the memory of an adapter's B as the kernel for the CPU keeps it for a slot that is taken."""
    return rank * NUMBER_BYTES * sum(out for out, _ in _chosen(modules, targets))


def rank_at_least(rank: int) -> int | None:
    """Return the smallest rank that vLLM can be started with and that covers `rank`; None if none does."""
    return next((one for one in VLLM_RANKS if one >= rank), None)


def _chosen(modules: Modules, targets: Collection[str] | None) -> Iterator[tuple[int, int]]:
    for name, shape in modules.items():
        if targets is None or name.rpartition(".")[2] in targets:
            yield shape
