"""Counts by bucket, and Prometheus families made from plain counts."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import accumulate

from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.utils import floatToGoString

Row = tuple[Sequence[str], float]


LOAD_SECONDS = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
"""Bounds for what takes a load of an adapter, or as long."""


class Histogram:
    """Counts by bucket; `bounds` are upper, inclusive."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def add(self, other: Histogram) -> None:
        """Add all of another histogram's counts; the bounds are the same."""
        self.counts = [mine + its for mine, its in zip(self.counts, other.counts, strict=True)]
        self.total += other.total


def bucket_quantile(
    counts: Mapping[int, int] | Sequence[int], bounds: Sequence[float], share: float
) -> float | None:
    """Return the value below which `share` of what was counted by bucket lies; None of nothing.

    Within a bucket values are taken as spread evenly; beyond all `bounds` it is the last of them.
    """
    by_place = counts if isinstance(counts, Mapping) else dict(enumerate(counts))
    total = sum(by_place.values())
    if not total:
        return None
    wanted, below = share * total, 0
    for place in sorted(by_place):
        inside = by_place[place]
        if inside and below + inside >= wanted:
            low = bounds[place - 1] if place else 0.0
            high = bounds[min(place, len(bounds) - 1)]
            return low + (high - low) * max(0.0, wanted - below) / inside
        below += inside
    return bounds[-1]


def counter(name: str, text: str, labels: Sequence[str], rows: Iterable[Row]) -> Metric:
    """Return a counter; its samples are called `<name>_total`."""
    family = CounterMetricFamily(name, text, labels=labels)
    for values, value in rows:
        family.add_metric(list(values), value)
    return family


def gauge(name: str, text: str, labels: Sequence[str], rows: Iterable[Row]) -> Metric:
    """Return a gauge."""
    family = GaugeMetricFamily(name, text, labels=labels)
    for values, value in rows:
        family.add_metric(list(values), value)
    return family


def histogram(
    name: str, text: str, labels: Sequence[str], rows: Iterable[tuple[Sequence[str], Histogram]]
) -> Metric:
    """Return a histogram with cumulative buckets; a row that holds nothing yet is left out.

    A thousand versions have 50,000 lines, which hold the event loop for half a second: no line without need.
    """
    family = HistogramMetricFamily(name, text, labels=labels)
    for values, buckets in rows:
        counts = list(accumulate(buckets.counts))
        if counts[-1]:
            family.add_metric(
                list(values), list(zip(_edges(buckets.bounds), counts, strict=True)), buckets.total
            )
    return family


@lru_cache
def _edges(bounds: tuple[float, ...]) -> tuple[str, ...]:
    return (*map(floatToGoString, bounds), "+Inf")
