"""One version's place in an engine, and those who wait for it."""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field

from registry.errors import WardrobeError
from registry.records import Version

Ticket = asyncio.Future[None]
"""One use that waits: done once it counts in `in_use`, or holding why it never will."""


@dataclass(slots=True, eq=False)
class ResidentSlot:
    """One version's place: `ready` means loaded and proved.

    `in_use` counts requests to their stream's end, the last of which ended at `released`; `tickets` are those
    that wait for the load or for a turn. While it is `closed` it takes no new ones; while it is `leaving` the
    engine lets it go, and is not asked to again before `stuck_until` where it would not. One that is
    `standing_in` answers in the place of another. Times are of the residency's clock.
    """

    version: Version
    ready: bool = False
    in_use: int = 0
    tickets: list[Ticket] = field(default_factory=list)
    closed: bool = False
    impatient: asyncio.TimerHandle | None = None
    last_used: float = 0.0
    released: float = -math.inf
    pinned: bool = False
    leaving: bool = False
    stuck_until: float = -math.inf
    standing_in: bool = False
    evicted: bool = False
    attempts: int = 0
    retry_at: float = 0.0
    failure: WardrobeError | None = None
    task: asyncio.Task[None] | None = None

    @property
    def name(self) -> str:
        """Return the engine's name."""
        return self.version.name

    @property
    def idle(self) -> bool:
        """Return True when nobody uses it, waits for it, loads it or lets it go."""
        return not self.in_use and not self.tickets and self.task is None and not self.leaving

    def due(self, now: float) -> bool:
        """Return True when a load may be tried (again)."""
        if self.ready or self.leaving or self.task is not None:
            return False
        return self.failure is None or now >= self.retry_at
