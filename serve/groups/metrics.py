"""What Prometheus is told of the queue before the engine. A scrape reads a few numbers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from prometheus_client.metrics_core import Metric

from serve.exposition import gauge
from serve.groups.queue import FairQueue


@dataclass(frozen=True, slots=True, eq=False)
class QueueMetrics:
    """A collector over the queue of one router."""

    queue: FairQueue

    def collect(self) -> Iterator[Metric]:
        """Yield the families, for a scrape."""
        queue = self.queue
        rows = [(("taken",), float(queue.taken)), (("waiting",), float(queue.waiting))]
        if queue.seats is not None:
            rows.append((("max",), float(queue.seats)))
        text = "Seats of the engine: how many there are, how many are taken, and who waits for one."
        yield gauge("wardrobe_engine_seats", text, ("kind",), rows)

    def describe(self) -> Iterator[Metric]:
        """Yield nothing: two routers in one process (tests) are no clash."""
        return iter(())
