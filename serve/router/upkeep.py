"""What one router process does again and again beside answering: beat, renew the keys, write, tidy up.

Owns what this replica says of itself (its heartbeat, and what it cannot do now) and when it must not go on:
keys that could not be renewed for too long may have been revoked. Invariant: serving needs no write; what
cannot be written is told and tried again, and stops nothing.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from registry.background import Background, PeriodicWork
from registry.entries.keyring import KeyRing
from registry.entries.replicas import HEARTBEAT_SECONDS, LIVE_SECONDS
from registry.errors import Conflict, CorruptStore, StorageFailed
from registry.records import Heartbeat
from registry.storage.reserve import fill
from registry.store import Registry
from serve.engine.handover import notes
from serve.router.endpoints.feedback import FeedbackDesk
from serve.router.endpoints.response_id import IdIssuer
from serve.router.residents.proof import Prover
from serve.settings import SERVER_VARIABLE

KEYS_SECONDS = 0.5
FEEDBACK_SECONDS = 1.0
PROOFS_SECONDS = 5.0
HOUSE_SECONDS = 60.0
TIDY_SECONDS = 3_600.0
SECRET = "response-id"  # noqa: S105 - the name of the key, not the key

SERVER = os.environ.get(SERVER_VARIABLE) or secrets.token_hex(8)
"""A word that this server alone has; the launcher gives the same one to each of its engines."""

_log = logging.getLogger("wardrobe.router")


@dataclass(slots=True, eq=False)
class Upkeep:
    """The work of one router that goes on; `describe` gives the heartbeat without its notes."""

    registry: Registry
    background: Background
    keys: KeyRing
    ids: IdIssuer
    feedback: FeedbackDesk
    prover: Prover
    describe: Callable[[], Heartbeat]
    replica: str
    _heartbeat: PeriodicWork = field(init=False)
    _stored_ids: bool = True
    _tidied: float = 0.0

    def __post_init__(self) -> None:
        work = self.background.work
        self._heartbeat = work("heartbeat", self.beat, HEARTBEAT_SECONDS)
        self.feedback.trouble = lambda: self._heartbeat.problem

    def begin(self) -> list[asyncio.Task[None]]:
        """Begin everything that goes on, and return the tasks."""
        work = self.background.work
        works = [
            self._heartbeat,
            work("keys", self._renew_keys, KEYS_SECONDS),
            work("feedback", self._write_feedback, FEEDBACK_SECONDS),
            work("proofs", self._store_proofs, PROOFS_SECONDS),
            work("housekeeping", self._tidy, HOUSE_SECONDS),
        ]
        return [self.background.loop(one) for one in works]

    async def announce(self) -> None:
        """Beat for the first time; a root that cannot be written does not keep the server from serving.

        Raises: Conflict: another server bears this replica's name and lives.
        """
        deadline = time.monotonic() + LIVE_SECONDS
        while True:
            try:
                await self.beat()
            except Conflict:
                # One that was killed a moment ago looks alive for a while.
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(KEYS_SECONDS)
            except StorageFailed as error:
                self._heartbeat.fail(error)
                return
            else:
                return

    async def beat(self) -> None:
        """Say that this replica lives, what it holds and what it cannot do.

        Raises: Conflict; StorageFailed.
        """
        await asyncio.to_thread(self.registry.beat, replace(self.describe(), notes=notes()))

    def refusals(self) -> list[str]:
        """Return why no request may be taken now, in sentences; none as a rule."""
        if self.keys.enabled and self.keys.stale():
            problem = self.background.works["keys"].state() if "keys" in self.background.works else ""
            return [f"keys could not be renewed for {self.keys.age():.0f} s: {problem}".rstrip(": ")]
        return []

    def problems(self) -> list[str]:
        """Return what this replica cannot do now, in sentences; it serves all the same."""
        found = [f"{name}: {problem}" for name, problem in sorted(self.background.problems().items())]
        found += [f"group {name}: {problem}" for name, problem in sorted(self.keys.problems.items())]
        if not self._stored_ids:
            found.append("response ids: their key could not be stored, feedback on them is not evidence")
        return found

    def load_secret(self) -> None:
        """Take the key of response ids from the root; without one, ids of this process are its own alone."""
        try:
            self.ids.rekey(self.registry.secret(SECRET))
            self._stored_ids = True
        except (StorageFailed, CorruptStore) as error:
            if self._stored_ids:
                _log.warning("the key of response ids is not there: %s", error)
            self._stored_ids = False

    async def write_last(self) -> None:
        """Write what waits, at the end.

        Raises: StorageFailed.
        """
        await self._write_feedback()
        await self._store_proofs()

    async def _renew_keys(self) -> None:
        await asyncio.to_thread(self.keys.refresh)

    async def _write_feedback(self) -> None:
        append = self.registry.append_feedback
        write = self.feedback.log.write
        await asyncio.to_thread(write, lambda adapter, lines: append(adapter, self.replica, lines))

    async def _store_proofs(self) -> None:
        await asyncio.to_thread(self.prover.store)

    async def _tidy(self) -> None:
        await asyncio.to_thread(fill, self.registry.root)
        if not self._stored_ids:
            await asyncio.to_thread(self.load_secret)
        now = time.monotonic()
        if now - self._tidied >= TIDY_SECONDS:
            await asyncio.to_thread(self.registry.tidy)
            self._tidied = now
