"""The deployment that is a replica: a Ray actor with `wardrobe serve` as its child.

Its constructor ends when the replica is ready, so Ray sends nothing earlier. It is healthy while the
replica is ready: an engine that died is replaced as a whole, and the doors ask the others meanwhile. It tells
Ray which adapters it holds, so that Ray's router asks the replica that has the one wanted.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

from deploy.ray.child import Accepted, Head, RawRequest, ReplicaProcess, Unavailable
from deploy.ray.options import RayOptions
from deploy.ray.residents import ResidentAdapters

_TELL_SECONDS = 0.1
"""How often Ray's own multiplexing tells it of changes, too."""

_log = logging.getLogger("ray.serve")


class NotReady(Exception):
    """The replica takes no requests; Ray starts another after three such answers."""


class RayReplica:
    """Runs one replica and passes requests on to it."""

    async def __init__(self, options: RayOptions) -> None:  # type: ignore[misc]  # Ray awaits it
        from ray import serve

        name = f"ray-{serve.get_replica_context().replica_id.unique_id}".lower()
        self._options = options
        self._child = ReplicaProcess(options.serve_command(name), options.environment)
        self._residents = ResidentAdapters(options.root / "replicas" / f"{name}.json")
        self._news = asyncio.Event()
        await self._child.wait_ready(options.start_timeout_seconds)
        self._telling = asyncio.create_task(self._tell()) if options.by_adapter else None

    async def ask(self, request: RawRequest) -> AsyncIterator[Accepted | Head | Unavailable | bytes]:
        """Accept `request` and pass it on: its head, then its body; or that there is no answer."""
        from ray import serve

        if (adapter := serve.get_multiplexed_model_id()) and self._residents.ask(adapter):
            self._news.set()
        yield Accepted()
        async for part in self._child.ask(request):
            yield part

    async def check_health(self) -> None:
        """Raise while the replica takes no requests; called by Ray."""
        if not await self._child.ready():
            raise NotReady(f"{self._child.url}/readyz is not 200")

    async def _tell(self) -> None:
        """Tell Ray's routers what is resident here, whenever it changes, until the actor ends."""
        from ray import serve

        # NOTE: `serve.multiplexed` would keep a cache of its own beside vLLM's and tell of that. This is the
        # call by which it tells; the pinned release is what the tests run against.
        from ray.serve._private.common import RequestRoutingInfo
        from ray.serve.context import _get_global_client

        own, told = serve.get_replica_context().replica_id, None
        while True:
            names = self._residents.names()
            if names != told:
                try:
                    _get_global_client().record_request_routing_info(RequestRoutingInfo(own, names))
                    told = names
                except Exception:  # noqa: BLE001 - Ray's errors have no common class
                    # The controller restarts: requests go where they went, and the next turn tells it.
                    _log.warning("Ray could not be told what is resident", exc_info=True)
                    await asyncio.sleep(1.0)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_TELL_SECONDS):
                    await self._news.wait()
            self._news.clear()

    def __del__(self) -> None:
        """End the replica; Ray calls it when the requests in flight have ended."""
        self._child.stop(self._options.stop_seconds)
