"""The caller of one admin request: who it is, and the desk that answers it.

Owns that blocking calls run in threads of their own, and that a write is visible when its answer
leaves. Invariant: a request that nobody has authenticated reaches no desk.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Annotated, TypeVar

import anyio
import anyio.to_thread
from fastapi import Depends, Path, Request

from registry.api.local import LocalDesk
from registry.errors import Denied, WardrobeError
from registry.names import check_adapter_name
from registry.storage import anchor
from registry.store import Registry
from serve.control.schema import NAME
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


class Caller:
    """Who asks, and how it is answered."""

    def __init__(self, control: Control, who: str) -> None:
        self.control = control
        self.who = who
        self._desk = LocalDesk(control.registry, who=who)

    async def read(self, ask: Callable[[LocalDesk], _Answer]) -> _Answer:
        """Answer a question that changes nothing."""
        return await self.control.run(lambda: ask(self._desk))

    async def write(self, change: Callable[[LocalDesk], _Answer]) -> _Answer:
        """Make a change; when this returns, this process routes by it."""
        return await self.apply(lambda: change(self._desk))

    async def apply(self, change: Callable[[], _Answer]) -> _Answer:
        """Make a change that is not a desk's of adapters; when this returns, this process routes by it."""

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


def caller_of(request: Request) -> Caller:
    """Return who asks, as the router has found out.

    Raises: Denied: when no router has authenticated the request (the app was mounted without one).
    """
    who = request.scope.get("state", {}).get("who")
    if not isinstance(who, str) or not who:
        raise Denied("admin API", "the request was not authenticated", "send it through the router")
    return Caller(control_of(request), who)


CallerOf = Annotated[Caller, Depends(caller_of)]
ControlOf = Annotated[Control, Depends(control_of)]


def _checked(
    name: Annotated[
        str, Path(description="The adapter's name.", json_schema_extra=NAME, examples=["support"])
    ],
) -> str:
    return check_adapter_name(name)


Name = Annotated[str, Depends(_checked)]
"""The adapter of a path; refused as the registry refuses it."""
