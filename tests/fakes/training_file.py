"""A training run's text file as node_exporter would show it: every name of the catalogue, made up values."""

from __future__ import annotations

import time

from starlette.types import Receive, Scope, Send

from deploy.observability.catalogue import TRAINING

LABELS = {
    "job_id": "run-1", "adapter": "support", "method": "sft", "base": "tiny", "suite": "golden",
    "state": "running",
}  # fmt: skip


def training_text() -> str:
    """Return the file of a run that is at its hundredth step."""
    now = time.time()
    lines = []
    for one in TRAINING:
        value = now if one.name.endswith("timestamp_seconds") else 100.0
        labels = ",".join(f'{name}="{LABELS[name]}"' for name in one.labels)
        value = 1.0 if one.name in {"wardrobe_train_info", "wardrobe_train_state"} else value
        lines += [f"# HELP {one.name} {one.text}", f"# TYPE {one.name} {one.kind}"]
        lines.append(f"{one.name}{{{labels}}} {value}")
    return "\n".join(lines) + "\n"


class TrainingFile:
    """Serves it on every path."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a scrape."""
        headers = [(b"content-type", b"text/plain; version=0.0.4")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": training_text().encode()})
