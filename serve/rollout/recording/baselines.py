"""What stable is like outside a rollout: rolling counts per adapter, always on, frozen when one begins.

Owns `baselines/<adapter>/<replica>.json`. The event loop alone counts; the keeper writes. Invariant: a
baseline holds the last one to two `WINDOW_SECONDS`, so it is neither stale nor empty.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from serve.rollout.recording.evidence import (
    BUCKETS,
    COUNTED,
    FAILURES,
    LATENCY_BOUNDS,
    QUANTILES,
    Baseline,
    Count,
    Histogram,
    ReplicaEvidence,
    Seconds,
)
from serve.rollout.recording.pooling import quantile

WINDOW_SECONDS = 1_800.0
LEAST_TIMES = 100
"""Values without which quantiles are not frozen: fewer do not hold a 99th percentile."""


class BaselineDocument(BaseModel):
    """One replica's rolling counts: histograms by `LATENCY_BOUNDS`; `at` is UNIX seconds."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)

    at: Seconds
    requests: Count = 0
    failures: Count = 0
    first_token: Histogram = Field(default_factory=lambda: [0] * BUCKETS)
    per_token: Histogram = Field(default_factory=lambda: [0] * BUCKETS)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.failures > self.requests:
            raise ValueError(f"failures: {self.failures} of {self.requests} requests")
        return self


class DenseCounts:
    """Requests, failures and full latency histograms by `LATENCY_BOUNDS`; grows in place."""

    __slots__ = ("failures", "first_token", "per_token", "requests")

    def __init__(self) -> None:
        self.requests = self.failures = 0
        self.first_token = [0] * BUCKETS
        self.per_token = [0] * BUCKETS

    def copy(self) -> DenseCounts:
        """Return the counts as they are now."""
        same = DenseCounts()
        same.requests, same.failures = self.requests, self.failures
        same.first_token, same.per_token = list(self.first_token), list(self.per_token)
        return same


class BaselineArm:
    """The rolling counts of one adapter's stable in this replica."""

    __slots__ = ("_before", "_now", "_since", "changed")

    def __init__(self, now: float) -> None:
        self._before = DenseCounts()
        self._now = DenseCounts()
        self._since = now
        self.changed = False

    def observe(self, first_token: float | None, per_token: float | None, outcome: str) -> None:
        """Count one request: seconds where they are known, and a word of `Outcome`."""
        window = self._now
        window.requests += outcome in COUNTED
        window.failures += outcome in FAILURES
        if first_token is not None:
            window.first_token[bisect_left(LATENCY_BOUNDS, first_token)] += 1
        if per_token is not None:
            window.per_token[bisect_left(LATENCY_BOUNDS, per_token)] += 1
        self.changed = True

    def document(self, now: float) -> BaselineDocument:
        """Return the counts of the last one to two windows, after turning the window when it is due."""
        if now - self._since >= WINDOW_SECONDS:
            self._before, self._now, self._since = self._now, DenseCounts(), now
        both = (self._before, self._now)
        return BaselineDocument(
            at=now,
            requests=sum(window.requests for window in both),
            failures=sum(window.failures for window in both),
            first_token=_total(window.first_token for window in both),
            per_token=_total(window.per_token for window in both),
        )


def freeze(documents: Sequence[BaselineDocument]) -> Baseline:
    """Return what stable was like, over all replicas; quantiles only of `LEAST_TIMES` values or more."""
    requests = sum(document.requests for document in documents)
    failures = sum(document.failures for document in documents)
    return Baseline(
        first_token=_quantiles(_total(document.first_token for document in documents)),
        per_token=_quantiles(_total(document.per_token for document in documents)),
        error_rate=failures / requests if requests else 0.0,
        requests=requests,
    )


def freeze_stable(documents: Sequence[ReplicaEvidence]) -> Baseline:
    """Return what stable has been like in the rollout so far, for one that began without a baseline."""
    tallies = [
        segment.arms["stable"]
        for document in documents
        for segment in document.segments
        if "stable" in segment.arms
    ]
    requests = sum(tally.outcomes.get(word, 0) for tally in tallies for word in COUNTED)
    failures = sum(tally.outcomes.get(word, 0) for tally in tallies for word in FAILURES)
    return Baseline(
        first_token=_quantiles(_total(tally.first_token.histogram for tally in tallies)),
        per_token=_quantiles(_total(tally.per_token.histogram for tally in tallies)),
        error_rate=failures / requests if requests else 0.0,
        requests=requests,
    )


def _total(histograms: Iterable[Sequence[int]]) -> list[int]:
    total = [0] * BUCKETS
    for histogram in histograms:
        for place, count in enumerate(histogram[:BUCKETS]):
            total[place] += count
    return total


def _quantiles(histogram: Sequence[int]) -> list[float]:
    if sum(histogram) < LEAST_TIMES:
        return []
    return [quantile(histogram, share) or 0.0 for share in QUANTILES]
