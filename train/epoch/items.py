"""What a method makes of a row before the first step: token ids, checked; no torch.

Owns what every kind of item has in common, and the counts over a file. The kinds themselves belong to
their methods.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Generic, Protocol, TypeVar

from pydantic import Field


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
    """One data file: rows, tokens, tokens with a loss, and the rows whose end is cut off.

    A row is several `examples` where the base's template changes earlier turns, and `repeated_tokens` of
    `tokens` are computed again for that. `thoughtless` rows have reasoning that the template leaves out;
    `dropped` are the rows that were left out because `overflow: drop` says so, of which no document tells.
    """

    rows: int
    examples: int
    tokens: int
    learnt_tokens: int
    longest: int
    truncated: tuple[int, ...]
    repeated_tokens: int = 0
    thoughtless: tuple[int, ...] = ()
    dropped: Annotated[tuple[int, ...], Field(exclude=True)] = ()

    def remarks(self, name: str) -> Iterator[str]:
        """Yield what else is to be known of the file `name`."""
        if self.repeated_tokens:
            once = self.tokens - self.repeated_tokens
            yield (
                f"{name}: the base's chat template changes earlier turns, so {self.rows} rows are "
                f"{self.examples} examples, and {self.tokens} tokens are computed instead of {once} "
                "(data.answers: last learns only the last answer of each row)"
            )
        if self.thoughtless:
            yield (
                f"{name}: the reasoning of {len(self.thoughtless)} rows (first {self.thoughtless[0]}) "
                "is not learnt: the base's chat template leaves it out of an answer"
            )


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
