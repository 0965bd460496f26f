"""One batch in the hands of this server: its file is checked, its lines are answered, its results are made.

Owns the order of these steps and what ends each. Invariants: what is written down before a step is enough to
do it again, so a server that is killed at any moment is followed by another one; a line whose answer is on
the disk is not asked again; no more is in memory than what is in flight and not yet written.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol, TypeVar

from registry.entries.openai.batch_states import BatchEvent, BatchState
from registry.entries.openai.batches import Batch, BatchEntry, BatchProgress
from registry.entries.openai.files import PREFIX, FilePurpose, FileStore
from registry.entries.openai.ids import derived_id
from registry.errors import NotFound, StorageFailed
from registry.storage import disk
from serve.batches.answers import AnswerLog, AnswerRecord, Survey, claim_of, output_lines, survey
from serve.batches.asking import LineAsker, gave_up
from serve.batches.gate import Gate, Place
from serve.batches.lines import BatchLine, LineFault, check_lines, read_lines
from serve.batches.metrics import LineTally
from serve.batches.unasked import unasked_lines

if TYPE_CHECKING:
    from pydantic import JsonValue

WRITE_SECONDS = 0.5
"""Between two writings of answers: so many are asked again after a kill."""

CAREFUL_DEATHS = 2
"""So many servers died with this batch and without an answer: then lines go in one by one for a while."""
CAREFUL_LINES = 64
"""So many, which are more than there were in flight."""
FATAL_DEATHS = 3
"""One more died then: it was that line's doing, and its answer is that it was given up."""

_PIECE = 64
"""Lines that are read at once."""

_ENDS = {BatchState.FINALIZING: BatchEvent.COMPLETED, BatchState.CANCELLING: BatchEvent.CANCELLED}
_log = logging.getLogger("wardrobe.batches")
_Answer = TypeVar("_Answer")


class RunOnDisk(Protocol):
    """Runs a blocking call in a thread."""

    def __call__(self, call: Callable[[], _Answer], /) -> Awaitable[_Answer]:
        """Return what the call returns."""
        ...


@dataclass(frozen=True, slots=True)
class BatchTools:
    """What every batch of one server needs: where it asks, when it may, and how the disk is reached."""

    files: FileStore
    asker: LineAsker
    gate: Gate
    on_disk: RunOnDisk
    holder: str
    max_body_bytes: int
    clock: Callable[[], float] = time.time
    write_seconds: float = WRITE_SECONDS
    tally: LineTally = field(default_factory=LineTally)


class BatchRun:
    """One claim of one batch: `check` it, then `go_on` to its end."""

    def __init__(self, batch: Batch, claim: BatchEntry, tools: BatchTools) -> None:
        self._batch, self._claim, self._tools = batch, claim, tools
        self._answers = AnswerLog(batch.answers, claim.seq)
        self._tasks: set[asyncio.Task[None]] = set()
        self._survey: Survey | None = None
        self._progress = BatchProgress()
        self._over = asyncio.Event()
        self._deaths = 0

    async def go_on(self) -> bool:
        """Bring a batch that was checked to its end; False when it has to be taken up again.

        Raises: ClaimLost: another server has it; StorageFailed; CorruptStore.
        """
        state = (await self._tools.on_disk(self._batch.last)).state
        if state is BatchState.IN_PROGRESS and not await self._answer():
            return False
        if not state.final:
            await self._tools.on_disk(self._finish)
        return True

    async def check(self) -> BatchState:
        """Read the input file and begin, or say what is wrong with it; return the state then.

        Raises: as `go_on`; Conflict: it was cancelled meanwhile.
        """
        request, tools = self._batch.request, self._tools

        def check() -> BatchState:
            try:
                path = tools.files.content(request.input_file)
            except NotFound:
                fault = LineFault("invalid_input_file", f"The file '{request.input_file}' is gone.")
                return self._append(BatchEvent.FAILED, {"errors": [fault.document()]})
            found = check_lines(path, request.endpoint, tools.max_body_bytes)
            if found.faults:
                errors: list[JsonValue] = [one.document() for one in found.faults]
                return self._append(BatchEvent.FAILED, {"errors": errors})
            return self._append(BatchEvent.STARTED, {"total": found.total, "model": found.model})

        return await tools.on_disk(check)

    async def _answer(self) -> bool:
        """Have all lines answered, or as many as the time and whoever cancels leave; False: not yet."""
        total = await self._tools.on_disk(self._total)
        self._survey = await self._tools.on_disk(lambda: survey(self._batch.answers, total))
        self._progress = self._survey.progress
        self._deaths = await self._tools.on_disk(self._barren)
        writer = asyncio.create_task(self._write_on())
        writer.add_done_callback(lambda _: self._over.set())
        gone = False
        try:
            await self._ask_all()
            await self._until_answered()
        except NotFound:  # the input was deleted: what is answered is what there is
            gone = True
        finally:
            tasks = [*self._tasks, writer]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        whole = gone or self._progress.completed + self._progress.failed >= total
        return await self._tools.on_disk(lambda: self._settle(whole=whole))

    def _settle(self, *, whole: bool) -> bool:
        """Write what is left to write and say whether the results can be made."""
        self._write()
        last = self._batch.last()
        if last.holder != self._tools.holder:
            return False
        if last.state is not BatchState.IN_PROGRESS or self._is_late():
            return True
        if whole:
            self._append(BatchEvent.ANSWERED, {})
        return whole

    async def _ask_all(self) -> None:
        assert self._survey is not None, "made before"
        alone = 0
        async for line in self._lines():
            if self._survey.answered(line.place):
                continue
            if self._deaths >= FATAL_DEATHS:
                self._take(gave_up(line, self._tools.clock()))
                await self._tools.on_disk(self._write)
                self._deaths = CAREFUL_DEATHS
                continue
            place = Place(self._tools.gate)
            await self._until_let_in()
            if not await self._goes_in(place):
                return
            task = asyncio.create_task(self._ask(line, place))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            task.add_done_callback(lambda _, place=place: place.give_back())  # type: ignore[misc]
            if self._deaths >= CAREFUL_DEATHS:
                await self._until_answered()  # alone: if this one kills the engine, the next claim knows it
                await self._tools.on_disk(self._write)
                alone += 1
                self._deaths = 0 if alone >= CAREFUL_LINES else self._deaths

    async def _until_let_in(self) -> None:
        """Wait while the limits of whoever made the batch let nothing in."""
        while pause := self._tools.asker.pause(self._batch.request.who):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._over.wait()
                    return

    def _barren(self) -> int:
        """Return how many servers died before this claim, one after the other, without a single answer."""
        written = {claim_of(name) for name in disk.names(self._batch.answers)}
        deaths = 0
        for entry in self._batch.log():
            if entry.seq >= self._claim.seq:
                break
            if entry.event is BatchEvent.RELEASED:
                deaths = 0
            elif entry.event is BatchEvent.CLAIMED and entry.state is BatchState.IN_PROGRESS:
                deaths = 0 if entry.seq in written else deaths + 1
        return deaths

    async def _goes_in(self, place: Place) -> bool:
        """Wait for the place; False when the batch is over first."""
        entering, over = asyncio.create_task(place.take()), asyncio.create_task(self._over.wait())
        try:
            await asyncio.wait({entering, over}, return_when=asyncio.FIRST_COMPLETED)
        except BaseException:
            self._over.set()
            raise
        finally:
            entering.cancel()
            over.cancel()
            if self._over.is_set():
                entering.add_done_callback(lambda _: place.give_back())
        return not self._over.is_set()

    async def _ask(self, line: BatchLine, place: Place) -> None:
        request, tools = self._batch.request, self._tools
        self._take(await tools.asker.ask(line, request.endpoint, request.who, tools.clock(), place))
        place.give_back(answered=True)

    def _take(self, record: AnswerRecord) -> None:
        self._answers.add(record)
        good = 200 <= record.status < 300
        done, tally = self._progress, self._tools.tally
        tally.good += good
        tally.refused += not good
        self._progress = BatchProgress(done.completed + good, done.failed + (not good))

    async def _until_answered(self) -> None:
        over = asyncio.create_task(self._over.wait())
        try:
            while self._tasks and not self._over.is_set():
                await asyncio.wait({*self._tasks, over}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            over.cancel()

    async def _write_on(self) -> None:
        """Write what was answered, again and again, until the batch is over for this server."""
        while True:
            await asyncio.sleep(self._tools.write_seconds)
            try:
                await self._tools.on_disk(self._write)
                last = await self._tools.on_disk(self._batch.last)
            except StorageFailed as error:
                _log.warning("answers of %s wait for the disk: %s", self._batch.id, error)
                return  # nothing more is asked; the batch is taken up again later
            lost = last.holder != self._tools.holder
            if lost or last.state is not BatchState.IN_PROGRESS or self._is_late():
                return

    def _write(self) -> None:
        if self._answers.write():
            self._batch.tell(self._progress)

    def _is_late(self) -> bool:
        return self._tools.clock() >= self._batch.request.ends_at

    def _finish(self) -> None:
        """Make the files of results and say that it is over; doing it again gives the same files."""
        log, total = self._batch.log(), self._total()
        found = survey(self._batch.answers, total)
        event = _ENDS.get(log[-1].state, BatchEvent.EXPIRED)
        ended = [one.at for one in log if one.event in {BatchEvent.ANSWERED, BatchEvent.WITHDRAWN}]
        at = ended[-1] if ended else self._batch.request.ends_at
        left = self._left(found, event) if total else iter(())
        files: dict[str, JsonValue] = {
            "output": self._file("output", at, output_lines(found, good=True)),
            "error": self._file("error", at, _chain(output_lines(found, good=False), left)),
        }
        progress = found.progress
        unasked = total - progress.completed - progress.failed if event is not BatchEvent.CANCELLED else 0
        counts: dict[str, JsonValue] = {"completed": progress.completed, "failed": progress.failed + unasked}
        facts: dict[str, JsonValue] = {"files": files, "counts": counts, "usage": dict(found.usage)}
        self._append(event, facts)

    def _left(self, found: Survey, event: BatchEvent) -> Iterator[bytes]:
        try:
            path = self._tools.files.content(self._batch.request.input_file)
        except NotFound:
            return iter(())
        return unasked_lines(path, found, event, self._batch.id)

    def _file(self, kind: str, at: float, lines: Iterator[bytes]) -> str | None:
        """Make a file of results, None where it would be empty."""
        first = next(lines, None)
        if first is None:
            return None
        batch = self._batch
        return self._tools.files.create(
            FilePurpose.BATCH_OUTPUT,
            f"{batch.id}_{kind}.jsonl",
            _chain(iter((first,)), lines),
            who=batch.request.who,
            lifetime_seconds=batch.request.output_lifetime,
            file_id=derived_id(PREFIX, at, batch.id, kind),
        ).id

    def _append(self, event: BatchEvent, facts: Mapping[str, JsonValue]) -> BatchState:
        holder = self._tools.holder
        return self._batch.append(event, who=holder, holder=holder, facts=facts).state

    def _total(self) -> int:
        """Return how many requests there are, 0 where that was never found out."""
        started = (one for one in self._batch.log() if one.event is BatchEvent.STARTED)
        found = next(started, None)
        total = found.facts.get("total") if found is not None else 0
        return total if isinstance(total, int) else 0

    async def _lines(self) -> AsyncIterator[BatchLine]:
        """Yield the requests of the input file, read piece by piece in a thread."""
        on_disk = self._tools.on_disk
        path = await on_disk(lambda: self._tools.files.content(self._batch.request.input_file))
        file = await on_disk(lambda: _open(path))
        try:
            lines = read_lines(file)
            while piece := await on_disk(lambda: _some(lines)):
                for line in piece:
                    yield line
        finally:
            file.close()


def _open(path: Path) -> BinaryIO:
    with disk.explained(path):
        return path.open("rb")


def _some(lines: Iterator[BatchLine]) -> list[BatchLine]:
    """Return the next lines: so many, or so few that they have a megabyte."""
    found, size = [], 0
    for line in lines:
        found.append(line)
        size += len(line.body)
        if len(found) >= _PIECE or size >= 1024 * 1024:
            break
    return found


def _chain(first: Iterator[bytes], second: Iterator[bytes]) -> Iterator[bytes]:
    yield from first
    yield from second
