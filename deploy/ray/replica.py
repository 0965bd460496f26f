"""The deployment that is a replica: a Ray actor with `wardrobe serve` as its child.

Its constructor ends when the replica is ready, so Ray sends nothing earlier. It is healthy while the
replica is ready: an engine that died is replaced as a whole, and the doors ask the others meanwhile.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from deploy.ray.child import Accepted, Head, RawRequest, ReplicaProcess, Unavailable
from deploy.ray.options import RayOptions


class NotReady(Exception):
    """The replica takes no requests; Ray starts another after three such answers."""


class RayReplica:
    """Runs one replica and passes requests on to it."""

    async def __init__(self, options: RayOptions) -> None:  # type: ignore[misc]  # Ray awaits it
        from ray import serve

        name = f"ray-{serve.get_replica_context().replica_id.unique_id}".lower()
        self._options = options
        drain = {"WARDROBE_DRAIN_SECONDS": f"{options.drain_seconds:g}"}
        self._child = ReplicaProcess(options.serve_command(name), drain)
        await self._child.wait_ready(options.start_timeout_seconds)

    async def ask(self, request: RawRequest) -> AsyncIterator[Accepted | Head | Unavailable | bytes]:
        """Accept `request` and pass it on: its head, then its body; or that there is no answer."""
        yield Accepted()
        async for part in self._child.ask(request):
            yield part

    async def check_health(self) -> None:
        """Raise while the replica takes no requests; called by Ray."""
        if not await self._child.ready():
            raise NotReady(f"{self._child.url}/readyz is not 200")

    def __del__(self) -> None:
        """End the replica; Ray calls it when the requests in flight have ended."""
        self._child.stop(self._options.stop_seconds)
