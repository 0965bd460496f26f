"""What a server does beside answering: it counts what it served, and tells webhooks of what ended."""

from __future__ import annotations

import asyncio

from registry.entries.openai.deliveries import Deliveries
from registry.tuning.jobs import TuningJobs
from serve.console.traffic import SAMPLE_SECONDS
from serve.router.runtime import Runtime
from serve.webhooks.delivery import WebhookSender
from serve.webhooks.events import endings_of

WEBHOOK_SECONDS = 1.0
TIDY_SECONDS = 3_600.0


def begin_chores(runtime: Runtime) -> list[asyncio.Task[None]]:
    """Begin what goes on, and return the tasks, which the caller cancels."""

    async def count() -> None:
        runtime.traffic.sample(runtime.metrics.series())

    counting = runtime.background.loop(runtime.background.work("traffic", count, SAMPLE_SECONDS))
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
        return [counting]

    async def send() -> None:
        await asyncio.to_thread(sender.turn)

    async def tidy() -> None:
        await asyncio.to_thread(sender.tidy)

    work = runtime.background.work
    return [
        counting,
        runtime.background.loop(work("webhooks", send, WEBHOOK_SECONDS)),
        runtime.background.loop(work("deliveries", tidy, TIDY_SECONDS)),
    ]
