"""Which batches ended, for webhooks."""

from __future__ import annotations

from collections.abc import Iterator

from registry.entries.openai.batches import BatchStore
from registry.errors import WardrobeError
from serve.webhooks.events import EventSource, WebhookEvent


def endings_of(batches: BatchStore) -> EventSource:
    """Return the source of `batch.completed`, `.failed`, `.expired` and `.cancelled`."""

    def since(at: float) -> Iterator[WebhookEvent]:
        for batch in batches.list():
            try:
                last = batch.last()
            except WardrobeError:
                continue  # a damaged batch is told of by whoever asks for it
            if last.state.final and last.at >= at:
                yield WebhookEvent(f"batch.{last.state}", batch.id, last.at)

    return since
