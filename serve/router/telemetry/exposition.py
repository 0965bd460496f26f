"""Prometheus families made from plain counts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Protocol

from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.utils import floatToGoString

Row = tuple[Sequence[str], float]


class Buckets(Protocol):
    """Counts by bucket: one more count than upper bounds, and the sum of all values."""

    bounds: tuple[float, ...]
    counts: list[int]
    total: float


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
    name: str, text: str, labels: Sequence[str], rows: Iterable[tuple[Sequence[str], Buckets]]
) -> Metric:
    """Return a histogram with cumulative buckets."""
    family = HistogramMetricFamily(name, text, labels=labels)
    for values, buckets in rows:
        edges = [*map(floatToGoString, buckets.bounds), "+Inf"]
        family.add_metric(
            list(values), list(zip(edges, accumulate(buckets.counts), strict=True)), buckets.total
        )
    return family
