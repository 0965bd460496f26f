"""Asks one line of a batch by the door that clients use, in the name of the key that made the batch.

So a line is authenticated, bounded, routed, counted and logged as any request is. Invariants: what a busy or
a restarting server refuses is asked again later; what a limit of its group does not let in yet waits, however
long that is, and no other line of that key goes in meanwhile; everything else is the line's answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import monotonic

import msgspec

from registry.entries.openai.ids import new_id
from serve.batches.answers import AnswerRecord
from serve.batches.gate import Place
from serve.batches.lines import BatchLine
from serve.groups.telling import WAIT_HEADER
from serve.request_id import HEADER
from serve.rollout.decision.inner import InnerAnswer, InnerClient

BACKOFF_SECONDS = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Before a line is asked again; after the last one the refusal is its answer."""

LONGEST_WAIT_SECONDS = 30.0
"""A limit that was raised is noticed so soon."""

_AGAIN = frozenset({408, 429, 503})


@dataclass(frozen=True, slots=True)
class LineAsker:
    """Asks by `door`; `lend` gives the token of a key, None where there are no keys."""

    door: InnerClient
    lend: Callable[[str], str | None]
    backoff_seconds: Sequence[float] = BACKOFF_SECONDS
    clock: Callable[[], float] = monotonic
    _waits: dict[str, float] = field(default_factory=dict)

    def pause(self, who: str) -> float:
        """Return for how many seconds no line of this key should go in: its limits let none in."""
        return max(0.0, self._waits.get(who, 0.0) - self.clock())

    async def ask(self, line: BatchLine, endpoint: str, who: str, now: float, place: Place) -> AnswerRecord:
        """Return the answer to a line, in the `place` that it has; `now` is UNIX seconds.

        A client that comes has the line come out; it goes in again later, as if it had not been asked.
        """
        pauses = iter(self.backoff_seconds)
        while True:
            found, pause = await self._unless_wanted(line, endpoint, who, now, place), 0.0
            if found is not None:
                record, wait = found
                if record.status not in _AGAIN:
                    return record
                following = wait if wait is not None else next(pauses, None)
                if following is None:
                    return record
                pause = following
                if wait is not None:
                    self._waits[who] = self.clock() + wait
            place.give_back()
            await asyncio.sleep(pause)
            await place.take()

    async def _unless_wanted(
        self, line: BatchLine, endpoint: str, who: str, now: float, place: Place
    ) -> tuple[AnswerRecord, float | None] | None:
        """Return the answer and how long a limit lets nothing in, None when the place was wanted first."""
        asking = asyncio.create_task(self._once(line, endpoint, who, now))
        wanted = asyncio.create_task(place.wanted.wait())
        try:
            await asyncio.wait({asking, wanted}, return_when=asyncio.FIRST_COMPLETED)
            return asking.result() if asking.done() else None
        finally:
            for task in (asking, wanted):
                task.cancel()
            await asyncio.gather(asking, wanted, return_exceptions=True)

    async def _once(
        self, line: BatchLine, endpoint: str, who: str, now: float
    ) -> tuple[AnswerRecord, float | None]:
        if line.streams:
            return _refused(line, now, "stream", "Streaming is not supported in batches."), None
        token = self.lend(who)
        headers = [] if token is None else [(b"authorization", b"Bearer " + token.encode())]
        found = await self.door.send(endpoint, line.body, headers)
        record = AnswerRecord(
            place=line.place,
            custom_id=line.custom_id,
            id=new_id("batch_req_", now),
            status=found.status,
            request_id=found.headers.get(HEADER, b"").decode("latin-1"),
            body=_json(found.body),
        )
        return record, _wait(found)


def _wait(answer: InnerAnswer) -> float | None:
    """Return how long a limit lets nothing in, None where none refused, or one that will never let it in."""
    told = answer.headers.get(WAIT_HEADER)
    if answer.status != 429 or told is None:
        return None
    return min(int(told) / 1_000, LONGEST_WAIT_SECONDS)


def _json(body: bytes) -> msgspec.Raw:
    """Return a body as it came, or as text where it is no JSON on one line."""
    try:
        msgspec.json.decode(body)
    except msgspec.DecodeError:
        return msgspec.Raw(msgspec.json.encode(body.decode("utf-8", "replace")))
    return msgspec.Raw(body if b"\n" not in body else msgspec.json.format(body, indent=-1))


def gave_up(line: BatchLine, now: float) -> AnswerRecord:
    """Return the answer to a line that seems to kill the server; `now` is UNIX seconds."""
    message = "The server died three times while this request was answered, the last time with nothing else."
    return _refused(line, now, None, message, status=500, kind="server_error")


def _refused(
    line: BatchLine,
    now: float,
    param: str | None,
    message: str,
    *,
    status: int = 400,
    kind: str = "invalid_request_error",
) -> AnswerRecord:
    error = {"message": message, "type": kind, "param": param, "code": None}
    body = msgspec.Raw(msgspec.json.encode({"error": error}))
    return AnswerRecord(line.place, line.custom_id, new_id("batch_req_", now), status, "", body)
