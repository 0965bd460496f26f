"""Which fine-tuning jobs ended, for webhooks."""

from __future__ import annotations

from collections.abc import Iterator

from registry.errors import WardrobeError
from registry.tuning.jobs import TuningJobs
from serve.webhooks.events import EventSource, WebhookEvent


def endings_of(jobs: TuningJobs) -> EventSource:
    """Return the source of `fine_tuning.job.succeeded`, `.failed` and `.cancelled`."""

    def since(at: float) -> Iterator[WebhookEvent]:
        for job in jobs.all():
            try:
                last = job.last()
            except WardrobeError:
                continue  # a damaged job is told of by whoever asks for it
            if last.state.final and last.at >= at:
                yield WebhookEvent(f"fine_tuning.job.{last.state}", job.id, last.at)

    return since
