"""What Prometheus is told about connections. A scrape reads a few numbers; nothing is counted on its way."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric

from serve.connections.census import Census, Wait
from serve.exposition import counter, gauge


class ConnectionMetrics:
    """A collector over one census."""

    def __init__(self, census: Census) -> None:
        self._census = census

    def collect(self) -> Iterator[Metric]:
        """Yield the families, for a scrape."""
        census = self._census
        waiting = {wait: len(table) for wait, table in census.waits.items()}
        busy = census.open - sum(n for wait, n in waiting.items() if wait is not Wait.WRITE)
        rows = [(("busy",), float(max(busy, 0))), *(((wait.value,), float(n)) for wait, n in waiting.items())]
        text = "Open connections: busy with a request, or what is waited for (write is a part of busy)."
        yield gauge("wardrobe_connections", text, ("state",), rows)
        most = [((), float(census.total))]
        yield gauge("wardrobe_connections_limit", "Connections that are allowed at once.", (), most)
        ended = [((wait.value,), n) for wait, n in sorted(census.ended.items())]
        text = "Connections closed because they waited too long, or to make room."
        yield counter("wardrobe_connections_ended", text, ("state",), ended)
        refused = [((code,), n) for code, n in sorted(census.refused.items())]
        text = "Connections refused before they became a request, by the error's code."
        yield counter("wardrobe_connections_refused", text, ("code",), refused)

    def describe(self) -> Iterator[Metric]:
        """Yield nothing: two servers in one process (tests) are no clash."""
        return iter(())


def expose(census: Census, registry: CollectorRegistry) -> None:
    """Show `census` on a registry, for as long as that lives."""
    registry.register(ConnectionMetrics(census))
