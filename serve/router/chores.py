"""What a server does for its root beside answering: at present it tells webhooks of what ended."""

from __future__ import annotations

import asyncio

from registry.entries.openai.deliveries import Deliveries
from registry.tuning.jobs import TuningJobs
from serve.router.runtime import Runtime
from serve.webhooks.delivery import WebhookSender
from serve.webhooks.events import endings_of

WEBHOOK_SECONDS = 1.0
TIDY_SECONDS = 3_600.0


def begin_chores(runtime: Runtime) -> list[asyncio.Task[None]]:
    """Begin what goes on, and return the tasks, which the caller cancels."""
    root = runtime.registry.catalogue.root
    sender = WebhookSender(
        Deliveries(root),
        runtime.settings.tuning.webhooks,
        [
            endings_of("fine_tuning.job", TuningJobs(root).all),
            endings_of("batch", runtime.registry.catalogue.batches.list),
        ],
        who=runtime.replica,
    )
    if not sender.wanted:
        return []

    async def send() -> None:
        await asyncio.to_thread(sender.turn)

    async def tidy() -> None:
        await asyncio.to_thread(sender.tidy)

    work = runtime.background.work
    return [
        runtime.background.loop(work("webhooks", send, WEBHOOK_SECONDS)),
        runtime.background.loop(work("deliveries", tidy, TIDY_SECONDS)),
    ]
