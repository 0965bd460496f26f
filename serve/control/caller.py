"""The caller of one admin request: who it is, and how it is answered.

Owns that blocking calls run in threads of their own, and that a write is visible when its answer
leaves. Invariant: a request that nobody has authenticated is not answered.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Annotated, Any, TypeVar

import anyio
import anyio.to_thread
from fastapi import Depends, Request

from registry.api.operation import LocalClient, Operation
from registry.errors import Denied, WardrobeError
from registry.storage import anchor
from registry.store import Registry
from serve.control.state import ControlState

_log = logging.getLogger("wardrobe.control")

_Answer = TypeVar("_Answer")

# Apart from the threads of the rest of the process: a slow disk under the registry must not use up
# those that generation needs.
_THREADS = 8


class Control:
    """What all admin requests of one process share."""

    def __init__(self, registry: Registry, state: ControlState) -> None:
        self.registry = registry
        self.state = state
        self._threads: anyio.CapacityLimiter | None = None

    async def run(self, call: Callable[[], _Answer]) -> _Answer:
        """Run a blocking call on the root in one of the admin API's own threads.

        Raises: RootAway: it would be answered as if there were nothing.
        """
        if self._threads is None:
            self._threads = anyio.CapacityLimiter(_THREADS)

        def confirm_and_call() -> _Answer:
            anchor.confirm(self.registry.root)
            return call()

        return await anyio.to_thread.run_sync(confirm_and_call, limiter=self._threads)


class AdminCaller:
    """Who asks, and how it is answered."""

    def __init__(self, control: Control, who: str) -> None:
        self.control = control
        self.who = who
        self._local = LocalClient(control.registry, who, control.state.notifier.notify)

    async def answer(self, operation: Operation[..., _Answer], arguments: Mapping[str, Any]) -> _Answer:
        """Answer an operation; when this returns a change, this process routes by it."""
        call = partial(operation, self._local, **arguments)
        return await (self.apply(call) if operation.changes else self.control.run(call))

    async def apply(self, change: Callable[[], _Answer]) -> _Answer:
        """Make a change; when this returns, this process routes by it."""

        def change_and_refresh() -> _Answer:
            answer = change()
            try:
                self.control.state.watcher.refresh()
            except WardrobeError as error:
                # The change is made; calling it failed would be wrong. The watcher's own loop tries again.
                _log.warning("the view could not be refreshed after a change: %s", error)
            return answer

        return await self.control.run(change_and_refresh)


def control_of(request: Request) -> Control:
    """Return what the server's own admin API was built with."""
    control = request.scope["state"]["control"]
    assert isinstance(control, Control)
    return control


def caller_of(request: Request) -> AdminCaller:
    """Return who asks, as the router has found out.

    Raises: Denied: when no router has authenticated the request (the app was mounted without one).
    """
    who = request.scope.get("state", {}).get("who")
    if not isinstance(who, str) or not who:
        raise Denied("admin API", "the request was not authenticated", "send it through the router")
    return AdminCaller(control_of(request), who)


CallerOf = Annotated[AdminCaller, Depends(caller_of)]
ControlOf = Annotated[Control, Depends(control_of)]
