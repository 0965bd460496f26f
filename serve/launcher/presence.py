"""Says in the root that this server lives, while its engine cannot: it starts, or is started again.

Owns the heartbeat of those times; a ready engine beats itself, under the same word. So a second server of
the same name is refused from the first second on, and `wardrobe status` shows what starts.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from registry.errors import Conflict
from registry.records import Heartbeat
from registry.store import Registry


class Presence:
    """The heartbeat of one server; its calls block on the root's disk.

    `refused` says that the name is another server's, so that this one must end.
    """

    def __init__(
        self, registry: Registry, replica: str, url: str, server: str, clock: Callable[[], float] = time.time
    ) -> None:
        self._registry = registry
        self._beat = Heartbeat(
            replica=replica,
            url=url,
            base_fingerprint=registry.base.fingerprint,
            resident=(),
            capacity=0,
            state="starting",
            started=clock(),
            pid=os.getpid(),
            server=server,
        )
        self.refused = False

    def beat(self) -> str:
        """Beat once; return why this server must end, '' as a rule.

        Raises: StorageFailed: the root takes no writes; serving needs none.
        """
        try:
            self._registry.beat(self._beat)
        except Conflict as error:
            self.refused = True
            return str(error)
        return ""

    def leave(self) -> None:
        """Take the heartbeat away, unless it is another server's.

        Raises: StorageFailed.
        """
        if not self.refused:
            self._registry.remove_replica(self._beat.replica)
