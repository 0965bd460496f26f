"""Carrying out a plan: every request is begun when it is due, whatever became of those before it.

Open loop: nothing waits for answers but the later turns of a conversation. Invariant: a request that is
late because this process was busy keeps its intended time, and what cannot be begun (more than
`max_in_flight`) is an error `shed`, never left out.
"""

from __future__ import annotations

import asyncio
import gc
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from loadtests.runner.plan import ArrivalPlan, Planned, request_body, request_path
from loadtests.runner.prompts import Message
from loadtests.runner.reading import AnswerReader
from loadtests.runner.records import OK, UNFINISHED, RecordFile, RequestRecord
from loadtests.runner.sending import Sender, SendingLimits

if TYPE_CHECKING:
    from loadtests.runner.actions import Actions

_FLUSH_SECONDS = 1.0
_FEEDBACK_PATH = "/v1/feedback"
_ACCEPTED = frozenset({200, 202})


@dataclass
class Execution:
    """One run of `plan` against a server; `advance` is told of every request that has ended."""

    plan: ArrivalPlan
    url: str
    key: str | None
    sink: RecordFile
    actions: Actions | None = None
    advance: Callable[[int], None] = lambda _: None
    began: float = 0.0
    shed: int = 0
    rated: int = 0
    partial: bool = False
    _in_flight: int = 0
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _open: dict[int, RequestRecord] = field(default_factory=dict)
    _fault: BaseException | None = None
    _run_id: str = field(default_factory=lambda: f"{time.time_ns():x}")

    def clock(self) -> float:
        """Return the seconds since the run began."""
        return time.perf_counter() - self.began

    async def run(self) -> None:
        """Send everything and wait for the answers; cancelled (Ctrl-C), end at once and be `partial`."""
        extras: list[asyncio.Task[None]] = []
        with _rare_collection():
            async with Sender(self.url, self.key, self.clock) as sender:
                self.began = time.perf_counter()
                extras.append(asyncio.create_task(self._flush()))
                if self.actions is not None:
                    extras.append(asyncio.create_task(self.actions.run(self.clock)))
                try:
                    await self._dispatch(sender)
                    await self._drain()
                    if self.actions is not None:
                        await self.actions.settle()
                except asyncio.CancelledError:
                    self.partial = True
                finally:
                    await self._end(extras)
        if self._fault is not None:
            raise self._fault

    async def _dispatch(self, sender: Sender) -> None:
        for planned in self.plan:
            body = request_body(self.plan.scenario, planned, planned.messages)
            await asyncio.sleep(max(0.0, planned.at - self.clock()))
            if self._in_flight >= self.plan.scenario.max_in_flight:
                self._refuse(planned)
                continue
            self._in_flight += 1
            task = asyncio.create_task(self._converse(sender, planned, body))
            self._tasks.add(task)
            task.add_done_callback(self._ended)

    async def _drain(self) -> None:
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def _end(self, extras: list[asyncio.Task[None]]) -> None:
        for task in (*extras, *self._tasks):
            task.cancel()
        await asyncio.gather(*extras, *self._tasks, return_exceptions=True)
        for record in self._open.values():
            record.ended = self.clock()
            record.outcome, record.error = UNFINISHED, ""
            self.sink.write(record)
        self.sink.flush()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._in_flight -= 1
        if not task.cancelled():
            self._fault = self._fault or task.exception()

    def _refuse(self, planned: Planned) -> None:
        record = self._record(planned, 0, planned.at)
        record.sent = record.ended = self.clock()
        record.fail("shed", f"{self.plan.scenario.max_in_flight} in flight already (max_in_flight)")
        self.shed += 1
        self._keep(record)

    async def _converse(self, sender: Sender, planned: Planned, body: bytes) -> None:
        scenario = self.plan.scenario
        messages: list[Message] = list(planned.messages)
        due = planned.at
        for turn in range(scenario.sessions.turns):
            if turn > 0:
                due = self.clock() + scenario.sessions.think_seconds
                if due >= scenario.total_seconds:
                    return
                messages.append(self.plan.next_question(planned, turn))
                body = request_body(scenario, planned, messages)
                await asyncio.sleep(scenario.sessions.think_seconds)
            text = await self._ask(sender, self._record(planned, turn, due), planned, body)
            if text is None:
                return
            messages.append({"role": "assistant", "content": text})

    async def _ask(self, sender: Sender, record: RequestRecord, planned: Planned, body: bytes) -> str | None:
        """Ask once; return the answer's text, or None where there is no whole answer."""
        scenario = self.plan.scenario
        reading = AnswerReader(record, keep_text=scenario.sessions.turns > 1 or bool(scenario.expect))
        self._open[id(record)] = record
        patience = planned.cancel_after if record.turn == 0 else None
        limits = SendingLimits(scenario.timeout_seconds, patience)
        session_id = f"{self._run_id}-{planned.index}"
        await sender.send(request_path(scenario), body, session_id, reading, limits)
        del self._open[id(record)]
        record.wrong_text = record.outcome == OK and self._expected(record.version) not in reading.text
        self._keep(record)
        if record.outcome != OK:
            return None
        await self._rate(sender, record)
        return reading.text

    def _expected(self, version: str) -> str:
        """Return what a version's answers must hold; a copy that the run made speaks as its source."""
        copies = self.actions.copies if self.actions is not None else {}
        return self.plan.scenario.expect.get(copies.get(version, version), "")

    async def _rate(self, sender: Sender, record: RequestRecord) -> None:
        feedback = self.plan.scenario.feedback
        if feedback is None or record.arm not in feedback.scores or not record.response_id:
            return
        if random.Random(f"{self.plan.scenario.seed}|{record.index}|rate").random() >= feedback.ratio:
            return
        document: dict[str, object] = {
            "response_id": record.response_id,
            "score": feedback.scores[record.arm],
        }
        self.rated += await sender.post(_FEEDBACK_PATH, document) in _ACCEPTED

    def _record(self, planned: Planned, turn: int, at: float) -> RequestRecord:
        return RequestRecord(
            planned.index, at, planned.model, planned.max_tokens, planned.stream, turn, sent=at
        )

    def _keep(self, record: RequestRecord) -> None:
        self.sink.write(record)
        if record.turn == 0:
            self.advance(1)

    async def _flush(self) -> None:
        while True:
            await asyncio.sleep(_FLUSH_SECONDS)
            self.sink.flush()


@contextmanager
def _rare_collection() -> Iterator[None]:
    """Keep the collector's pauses short: what is there already is not looked at, the rest seldom."""
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 1_000)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
