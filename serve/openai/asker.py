"""Who asks a platform endpoint, what it may see, and how its work on the disk is done.

Invariants: a request that nobody has authenticated is not answered; what another key made is as unknown as
what nobody made, except to a key that sees all; a blocking call never runs on the event loop.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, TypeVar

from fastapi import Depends, Request

from registry.entries.openai.files import FileInfo, FileStore
from registry.errors import Denied, NotFound
from registry.store import Registry
from serve.control.caller import Control
from serve.groups.sight import EVERYTHING, Sight
from serve.openai.state import PlatformState
from serve.settings import ServeSettings

_Answer = TypeVar("_Answer")


class Platform:
    """What all platform requests of one process share."""

    def __init__(self, registry: Registry, state: PlatformState) -> None:
        self.registry = registry
        self.state = state
        self.files: FileStore = registry.catalogue.files
        self._control = Control(registry, state)  # its threads are apart from those of the admin API

    @property
    def settings(self) -> ServeSettings:
        """Return the settings of the process."""
        return self.state.settings

    async def run(self, call: Callable[[], _Answer]) -> _Answer:
        """Run a blocking call on the root in one of the platform's own threads.

        Raises: RootAway.
        """
        return await self._control.run(call)


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks: the id of a key, whether it sees what others made, and which models exist for it."""

    platform: Platform
    who: str
    sees_all: bool
    sight: Sight = EVERYTHING

    @property
    def filter(self) -> str | None:
        """Return whose things may be listed, None: everybody's."""
        return None if self.sees_all else self.who

    def sees(self, owner: str) -> bool:
        """Return whether a thing of `owner` exists for who asks."""
        return self.sees_all or owner == self.who

    def file(self, file_id: str) -> FileInfo:
        """Return a file; blocks.

        Raises: NotFound: also for another key's.
        """
        info = self.platform.files.info(file_id)
        if not self.sees(info.who):
            raise NotFound("No such File object", file_id, param="id")
        return info


def platform_of(request: Request) -> Platform:
    """Return what the server's own platform endpoints were built with."""
    platform = request.scope["state"]["platform"]
    assert isinstance(platform, Platform)
    return platform


def asker_of(request: Request) -> Asker:
    """Return who asks, as the router has found out.

    Raises: Denied: no router has authenticated the request.
    """
    state = request.scope.get("state", {})
    who = state.get("who")
    if not isinstance(who, str) or not who:
        raise Denied("platform API", "the request was not authenticated", "send it through the router")
    return Asker(platform_of(request), who, bool(state.get("sees_all")), state.get("sight", EVERYTHING))


PlatformOf = Annotated[Platform, Depends(platform_of)]
AskerOf = Annotated[Asker, Depends(asker_of)]
