"""What is told: an event of a job or a batch that ended, in OpenAI's form."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from registry.entries.openai.batches import Batch
from registry.entries.openai.ids import derived_id
from registry.errors import WardrobeError
from registry.tuning.jobs import TuningJob

PREFIX = "evt_"


@dataclass(frozen=True, slots=True)
class WebhookEvent:
    """Something that ended: `kind` is OpenAI's name for it, `subject` its id, `at` when (UNIX seconds)."""

    kind: str
    subject: str
    at: float

    @property
    def id(self) -> str:
        """Return its id, the same at every server and at every attempt."""
        return derived_id(PREFIX, self.at, self.kind, self.subject)

    def body(self) -> bytes:
        """Return what is sent."""
        told: dict[str, Any] = {
            "id": self.id,
            "object": "event",
            "created_at": int(self.at),
            "type": self.kind,
            "data": {"id": self.subject},
        }
        return json.dumps(told, separators=(",", ":")).encode()

    def delivery_to(self, url: str) -> str:
        """Return the id of its delivery to one receiver."""
        return f"{self.id}.{sha256(url.encode()).hexdigest()[:12]}"


EventSource = Callable[[float], Iterable[WebhookEvent]]
"""Returns what ended since a time (UNIX seconds); blocks for the disk."""


def endings_of(kind: str, every: Callable[[], Iterable[TuningJob | Batch]]) -> EventSource:
    """Return the source of `kind` with the state that each of `every` ended in: `batch.completed`."""

    def since(at: float) -> Iterator[WebhookEvent]:
        for one in every():
            try:
                last = one.last()
            except WardrobeError:
                continue  # what is damaged is told of by whoever asks for it
            if last.state.final and last.at >= at:
                yield WebhookEvent(f"{kind}.{last.state}", one.id, last.at)

    return since
