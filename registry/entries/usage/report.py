"""Usage as people ask for it: from day to day, by group, key, adapter or day, with what it costs (pure).

Owns the words of the question. Invariant: the sum over all lines is the same, however it is asked by.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from registry.entries.usage.book import PeriodUsage
from registry.entries.usage.rows import UsageRow
from registry.settings.prices import PriceTable

BY = ("day", "group", "key", "adapter")
"""What usage can be asked by, in the order of the columns."""


@dataclass(frozen=True, slots=True)
class UsageTotal:
    """One line of the answer; None stands for what was not asked by.

    `day` is a month where days were summed to it. `cost` is in the root's currency, None where there is no
    price; `unpriced_tokens` have none.
    """

    day: str | None
    group: str | None
    key: str | None
    adapter: str | None
    requests: int
    refused: int
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    cost: float | None = None
    unpriced_tokens: int = 0


def totals(
    periods: Iterable[PeriodUsage], by: Collection[str], prices: PriceTable, *, group: str | None = None
) -> list[UsageTotal]:
    """Return the sums by what is in `by`, those with most tokens first where they are not of days."""
    found: dict[tuple[str | None, ...], _Sum] = {}
    for period, row in _rows(periods, group):
        names = {"day": period, "group": row.group, "key": row.key, "adapter": row.adapter}
        place = tuple(names[word] if word in by else None for word in BY)
        found.setdefault(place, _Sum()).add(row, prices)
    lines = [one.total(*place) for place, one in found.items()]
    return sorted(lines, key=lambda one: (one.day or "", -one.input_tokens - one.output_tokens, _names(one)))


def _rows(periods: Iterable[PeriodUsage], group: str | None) -> Iterator[tuple[str, UsageRow]]:
    for period in periods:
        for row in period.rows:
            if group is None or row.group == group:
                yield period.period, row


def _names(total: UsageTotal) -> tuple[str, ...]:
    return total.group or "", total.key or "", total.adapter or ""


class _Sum:
    """What is added up for one line."""

    __slots__ = ("cost", "row", "unpriced")

    def __init__(self) -> None:
        self.row = UsageRow("", "", "")
        self.cost: float | None = None
        self.unpriced = 0

    def add(self, row: UsageRow, prices: PriceTable) -> None:
        self.row = self.row.plus(row)
        cost = prices.cost(row.adapter, row.input_tokens, row.output_tokens, row.cached_tokens)
        if cost is None:
            self.unpriced += row.tokens
        else:
            self.cost = cost if self.cost is None else self.cost + cost

    def total(self, day: str | None, group: str | None, key: str | None, adapter: str | None) -> UsageTotal:
        row = self.row
        return UsageTotal(
            day,
            group,
            key,
            adapter,
            row.requests,
            row.refused,
            row.input_tokens,
            row.output_tokens,
            row.cached_tokens,
            None if self.cost is None else round(self.cost, 6),
            self.unpriced,
        )
