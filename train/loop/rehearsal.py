"""One pass over the largest batch before the first step: memory runs out at once, or never.

Owns the choice of the batch and the undoing. Invariant: the run that follows gives the same bytes as without
it: gradients, random state and the trainer's own counts are as before. Reinforcement runs have no such batch:
their rows are drawn answers.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from registry.errors import WardrobeError
from train.loop.evaluator import undisturbed

# What TRL counts per batch, and would count twice.
_COUNTS = ("_metrics", "_total_train_tokens")


def rehearse(name: str, trainer: Any, loader: Any) -> None:
    """Send the longest rows through the model, forward and backward, and undo what that left.

    Raises: WardrobeError: the device's memory is too small for them.
    """
    if loader is None or hasattr(trainer, "_buffered_inputs"):
        return
    indices = longest(loader.dataset, trainer.args.train_batch_size)
    counts = {key: copy.deepcopy(getattr(trainer, key)) for key in _COUNTS if hasattr(trainer, key)}
    trainer.current_gradient_accumulation_steps = 1
    with undisturbed():
        try:
            batch = loader.collate_fn([loader.dataset[index] for index in indices])
            trainer.training_step(trainer.model_wrapped, batch)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            raise too_large(name, len(indices)) from error
        finally:
            trainer.model_wrapped.zero_grad()
            for key, value in counts.items():
                setattr(trainer, key, value)


def longest(rows: Any, count: int) -> list[int]:
    """Return the indices of the `count` longest rows of a data set, the longest first."""
    sizes = [row_size(rows[index]) for index in range(len(rows))]
    return sorted(range(len(sizes)), key=lambda index: -sizes[index])[:count]


def row_size(row: Mapping[str, Any]) -> int:
    """Return the tokens of a row: of all its lists that are token ids."""
    return sum(len(value) for key, value in row.items() if key.endswith("ids") and isinstance(value, list))


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error of torch means that memory ran out."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text


def too_large(name: str, rows: int) -> WardrobeError:
    """Return the error for a batch that the device cannot hold."""
    fact = f"memory is too small for the batch of its {rows} longest rows"
    remedy = (
        "lower training.batch_size (and raise accumulation) or max_length, "
        "or set training.gradient_checkpointing: true"
    )
    return WardrobeError(name, fact, remedy, param="training.batch_size")
