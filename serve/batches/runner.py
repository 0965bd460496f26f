"""Which batches this server has in hand: it takes those that nobody has, and those whose server died.

Owns the choice and the tasks; what is done with a batch is `serve.batches.run`'s. Invariants: a batch is in
the hands of one server at a time, by its log; a server that is killed is followed within seconds of being
known to be dead; one that ends lets go without a word, and another one takes over.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field, replace

from registry.background import Background
from registry.entries.batch_states import BatchEvent
from registry.entries.batches import Batch, BatchEntry, BatchStore
from registry.errors import ClaimLost, Conflict, WardrobeError
from registry.records import Heartbeat
from serve.batches.run import BatchRun, BatchTools

TURN_SECONDS = 0.25
"""Between two looks for batches that nobody has in hand."""

MAX_AT_ONCE = 4
"""Batches that one server has in hand; each is another key's, and they take turns line by line."""

_log = logging.getLogger("wardrobe.batches")

Beats = Callable[[], Iterable[tuple[Heartbeat, bool]]]
"""Gives every replica's last heartbeat and whether it lives."""


def holder_name(replica: str, pid: int, began: float) -> str:
    """Return the name under which one process of a replica has batches in hand."""
    return f"{replica} {pid} {began:.6f}"


@dataclass(slots=True, eq=False)
class BatchRunner:
    """The batches of one server; `draining` says that it takes no new ones."""

    store: BatchStore
    tools: BatchTools
    beats: Beats
    draining: Callable[[], bool]
    _mine: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    _keys: dict[str, str] = field(default_factory=dict)
    _looking: asyncio.Task[None] | None = None

    def begin(self, background: Background) -> None:
        """Begin to look for batches, again and again."""
        self._looking = background.loop(background.work("batches", self.turn, TURN_SECONDS))

    async def turn(self) -> None:
        """Take the batches in hand that are due.

        Raises: StorageFailed; CorruptStore.
        """
        if self.draining():
            return
        room = MAX_AT_ONCE - len(self._mine)
        if room > 0:
            busy = frozenset(self._keys.values())
            for batch, last in await self.tools.on_disk(lambda: self._due(busy)):
                if len(self._mine) < MAX_AT_ONCE and batch.request.who not in self._keys.values():
                    self._begin(batch, last)

    async def stop(self) -> None:
        """Let go of every batch; what is not written is asked again by whoever takes it up."""
        mine = list(self._mine)
        tasks = [*self._mine.values(), *([] if self._looking is None else [self._looking])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        with contextlib.suppress(WardrobeError):  # then it looks dead in ten seconds
            await self.tools.on_disk(lambda: self._release(mine))

    def _release(self, names: Iterable[str]) -> None:
        holder = self.tools.holder
        for batch in map(self.store.find, names):
            with contextlib.suppress(ClaimLost, Conflict):  # it ended, or another one has it
                batch.append(BatchEvent.RELEASED, who=holder, holder=holder)

    def _begin(self, batch: Batch, last: BatchEntry) -> None:
        task = asyncio.create_task(self._run(batch, last))
        self._mine[batch.id], self._keys[batch.id] = task, batch.request.who

        def forget(_: asyncio.Task[None]) -> None:
            self._mine.pop(batch.id, None)
            self._keys.pop(batch.id, None)

        task.add_done_callback(forget)

    async def _run(self, batch: Batch, last: BatchEntry) -> None:
        try:
            claim = await self.tools.on_disk(lambda: self._claim(batch, last))
            await BatchRun(batch, claim, self.tools).run()
        except (ClaimLost, Conflict) as error:
            _log.info("%s goes on elsewhere: %s", batch.id, error)
        except WardrobeError as error:
            _log.warning("%s is taken up again later: %s", batch.id, error)
        except Exception:  # noqa: BLE001 - the next turn takes it up again
            _log.exception("%s is taken up again later", batch.id)

    def _claim(self, batch: Batch, last: BatchEntry) -> BatchEntry:
        """Return the claim under which this server has the batch in hand: a new one, or the one it has."""
        holder = self.tools.holder
        if last.holder != holder:
            return batch.append(BatchEvent.CLAIMED, who=holder, holder=holder, expected_seq=last.seq)
        claims = [one for one in batch.log() if one.event is BatchEvent.CLAIMED]
        return replace(last, seq=claims[-1].seq)

    def _due(self, busy: Collection[str]) -> list[tuple[Batch, BatchEntry]]:
        """Return the batches that nobody has in hand, the oldest first, of keys that have none in hand."""
        alive = {
            holder_name(one.replica, one.pid, one.started): one.state for one, lives in self.beats() if lives
        }
        return [
            (batch, last)
            for batch, last in self.store.unfinished()
            if batch.id not in self._mine
            and batch.request.who not in busy
            and (
                last.holder in {None, self.tools.holder} or alive.get(last.holder or "") in {None, "draining"}
            )
        ]
