"""What is told: an event of a job or a batch, in OpenAI's form. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from registry.entries.openai.ids import derived_id

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
