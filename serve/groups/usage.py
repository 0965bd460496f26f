"""What was used here: today's lines for the root's books, and what Prometheus sees.

The event loop alone writes them, once per request, at its end. Invariants: a request is on one line, of the
day on which it ended; a line that is written holds all of its day, so a kill loses what came after the last
writing and nothing counts twice, also where a clock is set back; at most `MAX_GROUPS` groups have series of
their own, the rest is `other`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from prometheus_client.metrics_core import Metric

from registry.entries.usage.rows import UsageRow
from serve.exposition import counter, gauge
from serve.outcomes import Outcome

MAX_GROUPS = 100
OTHER = "other"
BASE = "base"
"""The base model among a line's adapters."""

DAYS_KEPT = 2
"""A clock that is set goes back to a day that was begun; what was counted of it is still known then."""

_Names = tuple[str, str, str]
_KINDS = ("input", "output", "cached")
Tokens = tuple[int, int, int]
"""Of a prompt, of its answers, and those of the prompt that the prefix cache had."""


class UsageLine:
    """One key's use of one adapter today."""

    __slots__ = ("refused", "requests", "tokens")

    def __init__(self) -> None:
        self.requests = self.refused = 0
        self.tokens = [0, 0, 0]


class GroupSeries:
    """The counters of one group."""

    __slots__ = ("outcomes", "tokens")

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self.tokens = [0, 0, 0]


REFUSED = "refused"
"""How a request ended that a limit did not let in."""


class UsageLedger:
    """What this replica has counted today, by group, key and adapter."""

    def __init__(self) -> None:
        self.day = ""
        self._lines: dict[_Names, UsageLine] = {}
        self._days: dict[str, dict[_Names, UsageLine]] = {}
        self._unwritten: set[str] = set()
        self._series: dict[str, GroupSeries] = {}
        self.changed = False

    def begin(self, day: str) -> bool:
        """Begin a day, or go on with one that was begun; return whether it is a new one here.

        The last days are kept, and those that are not written yet.
        """
        if self.changed:
            self._unwritten.add(self.day)
        self.changed, new = False, day not in self._days
        self._lines = self._days[day] = self._days.pop(day, {})
        self.day = day
        for old in list(self._days)[:-DAYS_KEPT]:
            if old not in self._unwritten:
                del self._days[old]
        return new

    def add(self, day: str, rows: Iterable[UsageRow]) -> None:
        """Add what was counted of a day by this replica before it began it."""
        lines = self._days.get(day, {})
        for row in rows:
            line = _line(lines, (row.group, row.key, row.adapter))
            line.requests += row.requests
            line.refused += row.refused
            for place, tokens in enumerate((row.input_tokens, row.output_tokens, row.cached_tokens)):
                line.tokens[place] += tokens

    def take_changed(self) -> list[tuple[str, list[UsageRow]]]:
        """Return the days that have to be written, with all their lines."""
        if self.changed:
            self._unwritten.add(self.day)
        self.changed = False
        found = [(day, _rows(self._days[day])) for day in sorted(self._unwritten & self._days.keys())]
        self._unwritten = set()
        return found

    def put_back(self, day: str) -> None:
        """Note that a day could not be written."""
        self._unwritten.add(day)

    def count(self, group: str, key: str, adapter: str, outcome: Outcome, tokens: Tokens | None) -> None:
        """Count a request that ended; the `tokens` that it used, None where none were."""
        self.changed = True
        line, series = _line(self._lines, (group, key, adapter)), self.series(group)
        line.requests += 1
        series.outcomes[outcome] += 1
        if tokens is not None:
            for place in (0, 1, 2):
                line.tokens[place] += tokens[place]
                series.tokens[place] += tokens[place]

    def refuse(self, group: str, key: str, adapter: str) -> None:
        """Count a request that a limit did not let in."""
        self.changed = True
        _line(self._lines, (group, key, adapter)).refused += 1
        self.series(group).outcomes[REFUSED] += 1

    def rows(self) -> list[UsageRow]:
        """Return all lines of the day."""
        return _rows(self._lines)

    def series(self, group: str) -> GroupSeries:
        """Return a group's counters, or those of all that have none of their own."""
        found = self._series.get(group)
        if found is None:
            name = group if len(self._series) < MAX_GROUPS else OTHER
            found = self._series.setdefault(name, GroupSeries())
        return found

    def groups(self) -> dict[str, GroupSeries]:
        """Return the counters by group."""
        return dict(self._series)


def _line(lines: dict[_Names, UsageLine], names: _Names) -> UsageLine:
    found = lines.get(names)
    if found is None:
        found = lines[names] = UsageLine()
    return found


def _rows(lines: dict[_Names, UsageLine]) -> list[UsageRow]:
    return [
        UsageRow(*names, line.requests, line.refused, *line.tokens) for names, line in list(lines.items())
    ]


def used(rows: Iterable[UsageRow], place: tuple[str, str]) -> int:
    """Return the tokens in `rows` of one group or key: of ("group", NAME), or of ("key", ID)."""
    kind, name = place
    return sum(row.tokens for row in rows if (row.group if kind == "group" else row.key) == name)


LimitRow = tuple[str, str, int, int]
"""A group's limit: its name, what it counts, how much it is here, how much of it is left."""


@dataclass(slots=True, eq=False)
class GroupMetrics:
    """A collector of what groups used and have left; a scrape may come from another thread."""

    ledger: UsageLedger
    limits: Callable[[], list[LimitRow]] = field(default=list)

    def collect(self) -> Iterator[Metric]:
        """Yield every family, for a scrape."""
        groups = sorted(self.ledger.groups().items())
        ended = [
            ((name, outcome), n)
            for name, series in groups
            for outcome, n in sorted(dict(series.outcomes).items())
        ]
        text = "Requests by group and how they ended; refused: not let in by a limit."
        yield counter("wardrobe_group_requests", text, ("group", "outcome"), ended)
        tokens = [
            ((name, kind), n)
            for name, series in groups
            for kind, n in zip(_KINDS, series.tokens, strict=True)
        ]
        yield counter("wardrobe_group_tokens", "Tokens by group.", ("group", "type"), tokens)
        limits = self.limits()[: MAX_GROUPS * len(_KINDS) * 2]
        text = "This replica's part of a group's limit, and what is left of it."
        rows = [((name, limit, "limit"), float(whole)) for name, limit, whole, _ in limits]
        rows += [((name, limit, "left"), float(left)) for name, limit, _, left in limits]
        yield gauge("wardrobe_group_limit", text, ("group", "limit", "kind"), rows)

    def describe(self) -> Iterator[Metric]:
        """Yield nothing: two routers in one process (tests) are no clash."""
        return iter(())
