"""What all pages of one process share: who may look, who answers operations, what is remembered a moment.

Owns the few seconds for which a part of a page is the same for everybody: with many consoles open it is made
once.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from registry.entries.keyring import KeyRing
from registry.store import Registry
from registry.tuning.jobs import TuningJobs
from registry.views.view import View
from serve.console.sessions import BrowserSessions
from serve.console.traffic import Traffic
from serve.console.viewers import Viewers
from serve.control.caller import Control
from serve.control.state import ControlState

REMEMBERED_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class ConsoleParts:
    """What a server gives its console; `secret` gives the 32 bytes that sign sessions."""

    registry: Registry
    state: ControlState
    keys: KeyRing
    traffic: Traffic
    secret: Callable[[], bytes]


class Console:
    """The console of one process."""

    def __init__(self, parts: ConsoleParts, clock: Callable[[], float] = time.time) -> None:
        self.parts = parts
        self.clock = clock
        self.since = secrets.token_hex(8)
        self.control = Control(parts.registry, parts.state)
        self.viewers = Viewers(parts.keys, BrowserSessions(parts.secret, clock))
        self.jobs = TuningJobs(parts.registry.catalogue.root)
        self._remembered: dict[str, tuple[float, Any]] = {}

    @property
    def view(self) -> View:
        """Return the whole registry as this process sees it."""
        return self.parts.state.watcher.view

    async def remember(self, name: str, make: Callable[[], Awaitable[Any]]) -> Any:
        """Return what `make` made, `REMEMBERED_SECONDS` ago at most; `name` is one of a closed set."""
        at, found = self._remembered.get(name, (float("-inf"), None))
        now = time.monotonic()
        if now - at > REMEMBERED_SECONDS:
            found = await make()
            self._remembered[name] = now, found
        return found
