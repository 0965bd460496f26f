"""What Prometheus is told about batches. A scrape reads a few numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from prometheus_client.metrics_core import Metric

from serve.exposition import counter, gauge


@dataclass(slots=True)
class LineTally:
    """How many lines this process had answered with a success, and with a refusal."""

    good: int = 0
    refused: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class BatchMetrics:
    """A collector over one server's batches; the callables are asked at each scrape."""

    in_hand: Callable[[], int]
    inflight: Callable[[], int]
    tally: LineTally

    def collect(self) -> Iterator[Metric]:
        """Yield the families, for a scrape."""
        text = "Batches that this replica has in hand."
        yield gauge("wardrobe_batches", text, (), [((), float(self.in_hand()))])
        text = "Lines of batches in flight; they are among the requests in flight, too."
        yield gauge("wardrobe_batch_lines_inflight", text, (), [((), float(self.inflight()))])
        rows = [(("ok",), float(self.tally.good)), (("refused",), float(self.tally.refused))]
        text = "Lines of batches that were answered: with a success, or with a refusal."
        yield counter("wardrobe_batch_lines", text, ("outcome",), rows)

    def describe(self) -> Iterator[Metric]:
        """Yield nothing: two servers in one process (tests) are no clash."""
        return iter(())
