"""Data files as training examples: every row rendered, what is too long cut, left out or refused.

The rendering itself is `train.rendering`. Invariants: an answer's end-of-turn token is always learnt (else
the adapter never stops) unless `max_length` cuts it off, and every row that is left out is named.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TypeVar

from registry.errors import UsageError
from train.dataset.containers.place import Where
from train.dataset.forms.mapping import PLAIN, RowMapping
from train.epoch.items import ItemFile, TrainingItem
from train.epoch.rows import Conversation, read_rows, row_error
from train.rendering.examples import render, shared
from train.rendering.interface import IGNORED, LabelledTokens, Tokenizer, Unrenderable
from train.settings.data import Answers, Overflow

__all__ = ["IGNORED", "Example", "LabelledTokens", "Tokenizer", "Unrenderable", "load_examples", "render"]

_Kind = TypeVar("_Kind", bound=TrainingItem)


@dataclass(frozen=True, slots=True)
class Example:
    """Ready to train on: `labels` are `input_ids`, or -100 where nothing is learnt.

    `row` is the line in its file, of which there may be several examples: one per answer where the base's
    template changes earlier turns. `truncated` tells that tokens were cut off at the end.
    """

    row: int
    input_ids: tuple[int, ...]
    labels: tuple[int, ...]
    truncated: bool

    @property
    def length(self) -> int:
        """Return the number of tokens."""
        return len(self.input_ids)

    @property
    def learnt(self) -> int:
        """Return the number of tokens with a loss."""
        return sum(label != IGNORED for label in self.labels)


def load_examples(
    path: Where,
    tokenizer: Tokenizer,
    *,
    max_length: int,
    overflow: Overflow = "truncate",
    answers: Answers = "all",
    reading: RowMapping = PLAIN,
) -> ItemFile[Example]:
    """Read and render every row of the file at `path`.

    Raises: UsageError: naming file and row: a malformed row, a conversation that the template cannot show,
        an answer that `max_length` tokens cut off entirely, or, with `overflow` `error`, a row that is
        longer; a file of which every row would be dropped.
    """
    require_template(tokenizer)
    found: list[Example] = []
    dropped, thoughtless, repeated = [], [], 0
    for row in read_rows(path, reading):
        examples = render_row(path, row, tokenizer, answers)
        longest = max(len(one.ids) for one in examples)
        if longest > max_length and overflow != "truncate":
            refuse_overflow(path, row.number, longest, max_length, overflow)
            dropped.append(row.number)
        else:
            found += cut(path, row.number, examples, max_length)
            repeated += repeated_tokens(examples)
            thoughtless += [row.number] if any(one.thoughtless for one in examples) else []
    items = kept(path, found, dropped, max_length)
    return replace(items, repeated=repeated, thoughtless=tuple(thoughtless))


def repeated_tokens(examples: Sequence[LabelledTokens]) -> int:
    """Return how many tokens of a row's examples are those that its example before them begins with."""
    ids = [one.ids for one in examples]
    return sum(shared(before, after) for before, after in pairwise(ids))


def require_template(tokenizer: Tokenizer) -> None:
    """Refuse a tokenizer without a chat template.

    Raises: UsageError.
    """
    if not tokenizer.chat_template:
        raise UsageError("base model", "has no chat template", "use an instruct model, or give it a template")


def render_row(
    path: Where, row: Conversation, tokenizer: Tokenizer, answers: Answers = "all"
) -> tuple[LabelledTokens, ...]:
    """Return the examples of a row (`render`), its faults told with file and row.

    Raises: UsageError.
    """
    try:
        return render(row, tokenizer, answers)
    except Unrenderable as error:
        raise row_error(path, row.number, str(error), error.remedy) from error


def refuse_overflow(path: Where, number: int, length: int, max_length: int, overflow: Overflow) -> None:
    """Refuse a row that is too long where `overflow` is `error`.

    Raises: UsageError.
    """
    if overflow == "error":
        fact = f"has {length} tokens, over max_length {max_length}, and data.overflow is error"
        raise row_error(path, number, fact, f"raise max_length to {length}, shorten the row, or drop it")


def kept(path: Where, items: Sequence[_Kind], dropped: Sequence[int], max_length: int) -> ItemFile[_Kind]:
    """Return the items of a file of which `dropped` rows were left out.

    Raises: UsageError: nothing is left.
    """
    if not items:
        fact = f"all {len(dropped)} rows are longer than max_length {max_length} and would be dropped"
        raise UsageError(str(path), fact, "raise training.max_length")
    return ItemFile(tuple(items), tuple(dropped))


def cut(path: Where, number: int, examples: Sequence[LabelledTokens], max_length: int) -> list[Example]:
    """Return the first `max_length` tokens of each example of row `number`.

    An example of which nothing that is learnt is left falls away, and the row counts as truncated.

    Raises: UsageError: nothing that is learnt is left of the row.
    """
    found = [_cut(number, one, max_length) for one in examples]
    left = [one for one in found if one.learnt]
    if not left:
        labels, needed = examples[0].labels, len(examples[0].ids)
        first = next(index for index, label in enumerate(labels) if label != IGNORED)
        fact = f"its answer begins at token {first + 1}, and max_length {max_length} cuts it off entirely"
        raise row_error(path, number, fact, f"raise max_length to {needed} or shorten the row")
    if len(left) < len(found):
        left[-1] = replace(left[-1], truncated=True)
    return left


def _cut(number: int, whole: LabelledTokens, max_length: int) -> Example:
    ids, labels = whole.ids[:max_length], whole.labels[:max_length]
    return Example(number, ids, labels, len(whole.ids) > max_length)
