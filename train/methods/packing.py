"""Short rows joined into long ones: which go together, and how a batch of them reaches the model.

Owns the packing and its collator. Invariants: every token is in exactly one row, no row is longer than the
limit, and each part sees only itself: position ids begin anew with each, and without a padding mask
transformers makes a block-diagonal one of them (`masking_utils.find_packed_sequence_indices`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from train.epoch.encoding import IGNORED

TOKENS = "num_tokens"


@dataclass(frozen=True, slots=True)
class Packed:
    """One row of several parts: `labels` as `input_ids`, or -100; `lengths` of the parts add up to both."""

    input_ids: tuple[int, ...]
    labels: tuple[int, ...]
    lengths: tuple[int, ...]


def pack_whole(items: Sequence[Any], max_length: int) -> list[Packed]:
    """Return rows of whole items, fullest first: each goes where it leaves least room, longest first.

    The first token of an item is never learnt: nothing before it belongs to it.
    """
    rooms: dict[int, list[list[Any]]] = {}  # by the tokens still free
    for item in sorted(items, key=lambda one: -one.length):
        room = next((free for free in range(item.length, max_length + 1) if rooms.get(free)), None)
        group = rooms[room].pop() if room is not None else []
        free = (max_length if room is None else room) - item.length
        group.append(item)
        rooms.setdefault(free, []).append(group)
    return [_joined(group) for free in sorted(rooms) for group in rooms[free]]


def pack_stream(items: Sequence[Any], max_length: int) -> list[Packed]:
    """Return rows of exactly `max_length` tokens, the last one shorter: the items end to end, cut anywhere.

    A row is one part: what came before in it stays in sight, across the end of a document.
    """
    ids = [token for item in items for token in item.input_ids]
    labels = [label for item in items for label in item.labels]
    starts = range(0, len(ids), max_length)
    rows = [(ids[at : at + max_length], labels[at : at + max_length]) for at in starts]
    return [Packed(tuple(row), tuple(learnt), (len(row),)) for row, learnt in rows]


def packed_rows(rows: Sequence[Packed]) -> Any:
    """Return the rows as a data set: `input_ids`, `labels` [tokens] and `seq_lengths` [parts]."""
    from datasets import Dataset

    return Dataset.from_dict(
        {
            "input_ids": [list(row.input_ids) for row in rows],
            "labels": [list(row.labels) for row in rows],
            "seq_lengths": [list(row.lengths) for row in rows],
        }
    )


def collate(rows: Sequence[dict[str, Any]], padding: int) -> dict[str, Any]:
    """Return a batch [rows, longest row] without an attention mask; `num_tokens` counts what is not padding.

    Padding stands at position 0, so each such token is a part of its own and nobody sees it.
    """
    import torch

    width = max(len(row["input_ids"]) for row in rows)
    ids = torch.full((len(rows), width), padding)
    labels = torch.full((len(rows), width), IGNORED)
    positions = torch.zeros((len(rows), width), dtype=torch.long)
    for number, row in enumerate(rows):
        length = len(row["input_ids"])
        ids[number, :length] = torch.tensor(row["input_ids"])
        labels[number, :length] = torch.tensor(row["labels"])
        positions[number, :length] = torch.cat([torch.arange(part) for part in row["seq_lengths"]])
    tokens = sum(len(row["input_ids"]) for row in rows)
    return {"input_ids": ids, "labels": labels, "position_ids": positions, TOKENS: tokens}


def packed_trainer_class() -> type[Any]:
    """Return TRL's SFT trainer, which counts the tokens of packed rows as they are."""
    from trl import SFTTrainer

    class PackedTrainer(SFTTrainer):
        """Takes `num_tokens` out of each batch: TRL counts only one row of a batch without a mask."""

        _total_train_tokens: int

        def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            inputs = dict(inputs)
            tokens, before = inputs.pop(TOKENS), self._total_train_tokens
            loss = super().compute_loss(model, inputs, *args, **kwargs)
            if self.model.training:
                counted = self.accelerator.gather(self._as_count(tokens)).sum().item()
                self._total_train_tokens = before + int(counted)
                self._metrics["train"][TOKENS] = [self._total_train_tokens]
            return loss

        def _as_count(self, tokens: int) -> Any:
            import torch

            return torch.tensor(tokens, device=self.accelerator.device)

    return PackedTrainer


def _joined(group: Sequence[Any]) -> Packed:
    labels = [label for item in group for label in (IGNORED, *item.labels[1:])]
    ids = tuple(token for item in group for token in item.input_ids)
    return Packed(ids, tuple(labels), tuple(item.length for item in group))
