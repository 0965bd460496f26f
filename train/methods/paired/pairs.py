"""Preference pairs as token ids: one prompt, the chosen and the rejected answer.

Owns what makes a pair fit to train on. Invariant: both answers stand behind the very same prompt ids and
differ in at least one token that is left after cutting.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from train.config import TrainConfig
from train.dataset.containers.place import Where
from train.dataset.forms.mapping import PLAIN, RowMapping
from train.dataset.records import CanonicalRow, RowKind
from train.epoch.duration import Epoch
from train.epoch.encoding import Tokenizer, kept, refuse_overflow, require_template
from train.epoch.items import ItemFile, TrainingItem
from train.epoch.rows import row_error
from train.methods.answers import cut_answer, read_samples, render_answer
from train.methods.interface import Method

REMEDY = 'write {"prompt": …, "chosen": …, "rejected": …}'


@dataclass(frozen=True, slots=True)
class Pair:
    """One row of preferences; `truncated` tells that an answer lost its end."""

    row: int
    prompt_ids: tuple[int, ...]
    chosen_ids: tuple[int, ...]
    rejected_ids: tuple[int, ...]
    truncated: bool

    @property
    def length(self) -> int:
        """Return the tokens of the prompt with the longer answer."""
        return len(self.prompt_ids) + max(len(self.chosen_ids), len(self.rejected_ids))

    @property
    def learnt(self) -> int:
        """Return the tokens of both answers."""
        return len(self.chosen_ids) + len(self.rejected_ids)


def read_pairs(
    path: Where, tokenizer: Tokenizer, config: TrainConfig, reading: RowMapping = PLAIN
) -> ItemFile[Pair]:
    """Read and render every pair of the file at `path`.

    Raises: UsageError: naming file and row: a malformed row, equal answers, an answer that is cut off
        entirely, a difference that is cut off, or a long row where `overflow` is `error`.
    """
    require_template(tokenizer)
    found, dropped = [], []
    for number, sample in read_samples(path, (RowKind.PREFERENCE,), REMEDY, reading):
        pair = _pair(path, number, sample, tokenizer, config)
        found.append(pair) if pair is not None else dropped.append(number)
    return kept(path, found, dropped, config.training.max_length)


def pair_epoch(items: Sequence[TrainingItem]) -> Epoch:
    """Return the pairs of one pass, with the tokens of both answers, each behind the prompt."""
    pairs = [item for item in items if isinstance(item, Pair)]
    return Epoch(len(items), sum(2 * len(pair.prompt_ids) + pair.learnt for pair in pairs))


def pair_rows(items: Sequence[Any]) -> Any:
    """Return the pairs as a data set with TRL's columns, and `length` for grouping."""
    from datasets import Dataset

    return Dataset.from_dict(
        {
            "prompt_ids": [list(item.prompt_ids) for item in items],
            "chosen_ids": [list(item.chosen_ids) for item in items],
            "rejected_ids": [list(item.rejected_ids) for item in items],
            "length": [item.length for item in items],
        }
    )


def _pair(
    path: Where, number: int, sample: CanonicalRow, tokenizer: Tokenizer, config: TrainConfig
) -> Pair | None:
    limit, overflow = config.training.max_length, config.data.overflow
    chosen = render_answer(path, number, sample.prompt, sample.answer, tokenizer, sample.tools)
    rejected = render_answer(path, number, sample.prompt, sample.rejected, tokenizer, sample.tools)
    if chosen.answer_ids == rejected.answer_ids:
        raise row_error(path, number, "chosen and rejected are the same text", "correct or delete the row")
    whole = max(chosen.whole, rejected.whole)
    if whole > limit and overflow != "truncate":
        refuse_overflow(path, number, whole, limit, overflow)
        return None
    chosen, rejected = (cut_answer(path, number, one, limit) for one in (chosen, rejected))
    if chosen.answer_ids == rejected.answer_ids:
        fact = f"chosen and rejected differ only behind max_length {limit}"
        raise row_error(path, number, fact, f"raise max_length to {whole} or shorten the row")
    return Pair(number, chosen.prompt_ids, chosen.answer_ids, rejected.answer_ids, whole > limit)


class PairMethod(Method):
    """A method that learns from preference pairs: how their rows are read, and how long an epoch is."""

    def read(
        self, path: Where, tokenizer: Tokenizer, config: TrainConfig, reading: RowMapping = PLAIN
    ) -> ItemFile[TrainingItem]:
        """Return every pair, rendered with the base's template.

        Raises: UsageError: naming file and row.
        """
        return read_pairs(path, tokenizer, config, reading)

    def epoch(self, items: Sequence[TrainingItem], config: TrainConfig) -> Epoch:
        """Return the pairs, with the tokens of both answers."""
        del config
        return pair_epoch(items)
