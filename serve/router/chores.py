"""What a server does beside answering: counts of traffic, books of usage, and webhooks of what ended."""

from __future__ import annotations

import asyncio
import contextlib

from registry.entries.openai.deliveries import Deliveries
from registry.errors import WardrobeError
from registry.tuning.jobs import TuningJobs
from serve.console.traffic import SAMPLE_SECONDS
from serve.groups.books import BOOKS_SECONDS, LIMITS_SECONDS, UsageBooks
from serve.router.runtime import Runtime
from serve.webhooks.delivery import WebhookSender
from serve.webhooks.events import endings_of

WEBHOOK_SECONDS = 1.0
TIDY_SECONDS = 3_600.0


class Chores:
    """What goes on for one runtime until `end`."""

    def __init__(self, runtime: Runtime) -> None:
        self._books = UsageBooks(
            runtime.admission, runtime.registry.root, runtime.replica, runtime.registry.replicas
        )
        self._runtime = runtime
        self._tasks: list[asyncio.Task[None]] = []

    async def begin(self) -> None:
        """Learn what was used today and who else serves, then go on."""
        runtime = self._runtime
        await self._books.begin()
        work = runtime.background.work
        works = [
            work("usage", self._keep, BOOKS_SECONDS),
            work("limits", self._note, LIMITS_SECONDS),
            work("traffic", self._count, SAMPLE_SECONDS),
        ]
        self._tasks = [*map(runtime.background.loop, works), *_tell_webhooks(runtime)]

    async def end(self) -> None:
        """Stop, and write what was used last."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._tasks:
            with contextlib.suppress(WardrobeError):  # it is told where the server's problems are
                await self._books.write()
        self._tasks = []

    async def _keep(self) -> None:
        self._runtime.admission.forget()
        await self._books.turn()

    async def _count(self) -> None:
        self._runtime.traffic.sample(self._runtime.metrics.series())

    async def _note(self) -> None:
        self._books.note()


def _tell_webhooks(runtime: Runtime) -> list[asyncio.Task[None]]:
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
