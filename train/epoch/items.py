"""What a method makes of a row before the first step: token ids, checked; no torch.

Owns what every kind of item has in common, and the counts over a file. The kinds themselves belong to
their methods.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Generic, Protocol, TypeVar


class TrainingItem(Protocol):
    """One row, ready to train on."""

    @property
    def row(self) -> int:
        """Return the line of its file, from 1."""

    @property
    def length(self) -> int:
        """Return its tokens: of the longest sequence that goes through the model for it."""

    @property
    def learnt(self) -> int:
        """Return its tokens with a loss; of a prompt that only asks, 0."""

    @property
    def truncated(self) -> bool:
        """Tell whether tokens were cut off at the end."""


@dataclass(frozen=True, slots=True)
class ItemCounts:
    """Counts over all items of one file; `truncated` lists the rows whose end was cut off.

    `dropped` lists the rows that were left out because `overflow: drop` says so. A row may give several
    `examples`; `repeated_tokens` of `tokens` are computed again for that. Of the rows
    `thoughtless`, the base's template leaves out reasoning.
    """

    rows: int
    tokens: int
    learnt_tokens: int
    longest: int
    truncated: tuple[int, ...]
    dropped: tuple[int, ...] = ()
    examples: int = 0
    repeated_tokens: int = 0
    thoughtless: tuple[int, ...] = ()


_Kind_co = TypeVar("_Kind_co", bound=TrainingItem, covariant=True)


@dataclass(frozen=True, slots=True)
class ItemFile(Generic[_Kind_co]):
    """The items of one file, and the rows that were left out of it on request.

    `repeated` are the tokens that an item begins with as the item of the same row before it does,
    `thoughtless` the rows with reasoning that the base's template leaves out.
    """

    items: tuple[_Kind_co, ...]
    dropped: tuple[int, ...] = ()
    repeated: int = 0
    thoughtless: tuple[int, ...] = ()

    @property
    def report(self) -> ItemCounts:
        """Return the counts."""
        return replace(
            report(self.items, self.dropped), repeated_tokens=self.repeated, thoughtless=self.thoughtless
        )


def report(items: Sequence[TrainingItem], dropped: Sequence[int] = ()) -> ItemCounts:
    """Count what `items` hold."""
    return ItemCounts(
        rows=len({item.row for item in items}),
        tokens=sum(item.length for item in items),
        learnt_tokens=sum(item.learnt for item in items),
        longest=max((item.length for item in items), default=0),
        truncated=tuple(dict.fromkeys(item.row for item in items if item.truncated)),
        dropped=tuple(dropped),
        examples=len(items),
    )
