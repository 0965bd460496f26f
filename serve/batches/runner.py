"""Which batches this server has in hand: it takes those that nobody has, and those whose server died.

Owns the choice and the tasks; what is done with a batch is `serve.batches.run`'s. Invariants: a batch is in
the hands of one server at a time, by its log; a server that is killed is followed within seconds of being
known to be dead; one that ends lets go without a word, and another one takes over.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from time import monotonic

from registry.background import Background
from registry.entries.openai.batch_states import BatchEvent, BatchState
from registry.entries.openai.batches import Batch, BatchEntry, BatchStore
from registry.errors import ClaimLost, Conflict, WardrobeError
from registry.records import Heartbeat
from serve.batches.metrics import BatchMetrics
from serve.batches.run import BatchRun, BatchTools

TURN_SECONDS = 0.25
"""Between two looks for batches that nobody has in hand."""

MAX_ASKING = 4
"""Batches whose lines one server asks at once; each is another key's, and they take turns line by line."""

MAX_IN_HAND = 16
"""Batches that one server has in hand at once, with those that are only checked, cancelled or finished."""

AGAIN_SECONDS = 5.0
"""After a failure that was not foreseen, or a disk that refuses, before a batch is taken up again."""

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
    clock: Callable[[], float] = monotonic
    _mine: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    _asking: dict[str, str] = field(default_factory=dict)
    _rests: dict[str, float] = field(default_factory=dict)
    _looking: asyncio.Task[None] | None = None

    def metrics(self) -> BatchMetrics:
        """Return what Prometheus is told."""
        gate = self.tools.gate
        return BatchMetrics(lambda: len(self._mine), lambda: gate.inside, self.tools.tally)

    def begin(self, background: Background) -> None:
        """Begin to look for batches, again and again."""
        self._looking = background.loop(background.work("batches", self.turn, TURN_SECONDS))

    async def turn(self) -> None:
        """Take the batches in hand that are due.

        Raises: StorageFailed; CorruptStore.
        """
        if self.draining():
            return
        for batch, last in await self.tools.on_disk(self._due):
            if len(self._mine) >= MAX_IN_HAND:
                break
            if last.state is not BatchState.IN_PROGRESS or self._takes_seat(batch):
                self._begin(batch, last)

    def _takes_seat(self, batch: Batch) -> bool:
        """Return whether the lines of a batch may be asked now; what is not of lines waits for nobody."""
        if len(self._asking) >= MAX_ASKING or batch.request.who in self._asking.values():
            return False
        self._asking[batch.id] = batch.request.who
        return True

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
        task = self._mine[batch.id] = asyncio.create_task(self._run(batch, last))

        def forget(_: asyncio.Task[None]) -> None:
            self._mine.pop(batch.id, None)
            self._asking.pop(batch.id, None)

        task.add_done_callback(forget)

    async def _run(self, batch: Batch, last: BatchEntry) -> None:
        self._rests.pop(batch.id, None)
        try:
            claim = await self.tools.on_disk(lambda: self._claim(batch, last))
            run = BatchRun(batch, claim, self.tools)
            if claim.state is BatchState.VALIDATING:
                state = await run.check()
                if state is BatchState.IN_PROGRESS and not self._takes_seat(batch):
                    await self.tools.on_disk(lambda: self._release([batch.id]))
                    return
            if not await run.go_on():
                self._rests[batch.id] = self.clock() + AGAIN_SECONDS
        except (ClaimLost, Conflict) as error:
            _log.info("%s goes on elsewhere: %s", batch.id, error)
        except Exception as error:  # noqa: BLE001 - a later turn takes it up again
            self._rests[batch.id] = self.clock() + AGAIN_SECONDS
            known = isinstance(error, WardrobeError)
            _log.warning("%s is taken up again: %s", batch.id, error, exc_info=None if known else error)

    def _claim(self, batch: Batch, last: BatchEntry) -> BatchEntry:
        """Return the claim under which this server has the batch in hand: a new one, or the one it has."""
        holder = self.tools.holder
        if last.holder != holder:
            return batch.append(BatchEvent.CLAIMED, who=holder, holder=holder, expected_seq=last.seq)
        claims = [one for one in batch.log() if one.event is BatchEvent.CLAIMED]
        return replace(last, seq=claims[-1].seq)

    def _due(self) -> list[tuple[Batch, BatchEntry]]:
        """Return the batches that nobody has in hand, the oldest first."""
        beats = [beat for beat, lives in self.beats() if lives]
        taken = {holder_name(one.replica, one.pid, one.started) for one in beats if one.state != "draining"}
        taken.discard(self.tools.holder)
        now = self.clock()
        return [
            (batch, last)
            for batch, last in self.store.unfinished()
            if batch.id not in self._mine
            and last.holder not in taken
            and now >= self._rests.get(batch.id, now)
        ]
