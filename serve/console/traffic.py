"""What was served in the last hour, by adapter, in memory: requests, failures, times to the first token.

Owns one hour in minutes and nothing older. It is fed with the router's own counters, so that a request costs
nothing here. Invariant: at most `MINUTES` minutes with at most `MAX_ADAPTERS` adapters each are kept; what is
beyond that counts as `other`.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from serve.exposition import Histogram, bucket_quantile
from serve.outcomes import Outcome

SAMPLE_SECONDS = 10.0
"""How often the counters are looked at; what a page shows is that old at most."""
MINUTES = 60
MAX_ADAPTERS = 200
OTHER = "other adapters"


class ServedCounts(Protocol):
    """What is read of the router's counters of one arm: they only grow."""

    @property
    def adapter(self) -> str:
        """Return whose they are."""
        ...

    @property
    def outcomes(self) -> Counter[tuple[str, Outcome]]:
        """Return how requests ended, by operation."""
        ...

    @property
    def ttft(self) -> Histogram:
        """Return times to the first token, seconds."""
        ...


@dataclass(slots=True)
class Tally:
    """Requests of one adapter; `first` counts the times to the first token by the bucket of `bounds`."""

    requests: int = 0
    failed: int = 0
    first: list[int] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        """Add another's counts."""
        self.requests += other.requests
        self.failed += other.failed
        self.first = _sum(self.first, other.first)

    def since(self, before: Tally) -> Tally:
        """Return what was counted after `before`; nothing where counters began anew."""
        if self.requests < before.requests:
            return Tally()
        was = before.first or [0] * len(self.first)
        grown = [max(0, now - then) for now, then in zip(self.first, was, strict=True)]
        return Tally(self.requests - before.requests, max(0, self.failed - before.failed), grown)


@dataclass(frozen=True, slots=True)
class AdapterTraffic:
    """An adapter's last hour: shares 0 … 1, times in seconds; None where nothing was streamed."""

    adapter: str
    requests: int
    failed: int
    median: float | None
    p95: float | None

    @property
    def failed_share(self) -> float:
        """Return the share of requests that got no whole answer."""
        return self.failed / self.requests if self.requests else 0.0


@dataclass(frozen=True, slots=True)
class Minute:
    """All adapters in one minute; `at` is its beginning, UNIX seconds."""

    at: float
    requests: int
    failed: int


class Traffic:
    """The last hour of one server process; `sample` is called every `SAMPLE_SECONDS`, by one thread."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._minutes: deque[tuple[int, dict[str, Tally]]] = deque(maxlen=MINUTES)
        self._last: dict[str, Tally] = {}
        self._bounds: tuple[float, ...] = ()

    def sample(self, series: Iterable[ServedCounts]) -> None:
        """Take note of what the counters say now."""
        now: dict[str, Tally] = {}
        for one in series:
            requests = sum(one.outcomes.values())
            failed = sum(n for (_, outcome), n in one.outcomes.items() if outcome.fails_user)
            self._bounds = one.ttft.bounds
            now.setdefault(one.adapter, Tally()).add(Tally(requests, failed, one.ttft.counts))
        minute = self._minute()
        for adapter, total in now.items():
            grown = total.since(self._last.get(adapter, Tally()))
            if grown.requests:
                known = adapter in minute or len(minute) < MAX_ADAPTERS
                minute.setdefault(adapter if known else OTHER, Tally()).add(grown)
        self._last = now

    def adapters(self) -> list[AdapterTraffic]:
        """Return the last hour by adapter, the busiest first."""
        sums: dict[str, Tally] = {}
        for _, minute in self._recent():
            for adapter, tally in minute.items():
                sums.setdefault(adapter, Tally()).add(tally)
        found = [
            AdapterTraffic(name, one.requests, one.failed, self._at(one, 0.5), self._at(one, 0.95))
            for name, one in sums.items()
        ]
        return sorted(found, key=lambda one: (-one.requests, one.adapter))

    def minutes(self) -> list[Minute]:
        """Return the last hour by minute, oldest first, those without a request too."""
        known = dict(self._recent())
        last = int(self._clock()) // 60
        return [
            Minute(60.0 * one, *_total(known.get(one, {}))) for one in range(last - MINUTES + 1, last + 1)
        ]

    def _minute(self) -> dict[str, Tally]:
        number = int(self._clock()) // 60
        if not self._minutes or self._minutes[-1][0] != number:
            self._minutes.append((number, {}))
        return self._minutes[-1][1]

    def _recent(self) -> list[tuple[int, dict[str, Tally]]]:
        oldest = int(self._clock()) // 60 - MINUTES
        return [one for one in self._minutes if one[0] > oldest]

    def _at(self, tally: Tally, share: float) -> float | None:
        return bucket_quantile(tally.first, self._bounds, share)


def _total(minute: Mapping[str, Tally]) -> tuple[int, int]:
    return sum(one.requests for one in minute.values()), sum(one.failed for one in minute.values())


def _sum(mine: list[int], others: list[int]) -> list[int]:
    if not mine:
        return list(others)
    return [a + b for a, b in zip(mine, others, strict=True)] if others else mine
