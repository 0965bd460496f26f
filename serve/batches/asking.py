"""Asks one line of a batch by the door that clients use, in the name of the key that made the batch.

So a line is authenticated, bounded, routed, counted and logged as any request is. Invariant: what a busy or a
restarting server refuses is asked again later; everything else is the line's answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from registry.entries.openai.ids import new_id
from serve.batches.answers import AnswerRecord
from serve.batches.gate import Place
from serve.batches.lines import BatchLine
from serve.request_id import HEADER
from serve.rollout.decision.inner import InnerClient

BACKOFF_SECONDS = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Before a line is asked again; after the last one the refusal is its answer."""

_AGAIN = frozenset({408, 429, 503})


@dataclass(frozen=True, slots=True)
class LineAsker:
    """Asks by `door`; `lend` gives the token of a key, None where there are no keys."""

    door: InnerClient
    lend: Callable[[str], str | None]
    backoff_seconds: Sequence[float] = BACKOFF_SECONDS

    async def ask(self, line: BatchLine, endpoint: str, who: str, now: float, place: Place) -> AnswerRecord:
        """Return the answer to a line, in the `place` that it has; `now` is UNIX seconds.

        A client that comes has the line come out; it goes in again later, as if it had not been asked.
        """
        pauses = iter(self.backoff_seconds)
        while True:
            record, pause = await self._unless_wanted(line, endpoint, who, now, place), 0.0
            if record is not None:
                if record.status not in _AGAIN:
                    return record
                following = next(pauses, None)
                if following is None:
                    return record
                pause = following
            place.give_back()
            await asyncio.sleep(pause)
            await place.take()

    async def _unless_wanted(
        self, line: BatchLine, endpoint: str, who: str, now: float, place: Place
    ) -> AnswerRecord | None:
        """Return the answer, None when the place was wanted back first."""
        asking = asyncio.create_task(self._once(line, endpoint, who, now))
        wanted = asyncio.create_task(place.wanted.wait())
        try:
            await asyncio.wait({asking, wanted}, return_when=asyncio.FIRST_COMPLETED)
            return asking.result() if asking.done() else None
        finally:
            for task in (asking, wanted):
                task.cancel()
            await asyncio.gather(asking, wanted, return_exceptions=True)

    async def _once(self, line: BatchLine, endpoint: str, who: str, now: float) -> AnswerRecord:
        if line.streams:
            return _refused(line, now, "stream", "Streaming is not supported in batches.")
        token = self.lend(who)
        headers = [] if token is None else [(b"authorization", b"Bearer " + token.encode())]
        found = await self.door.send(endpoint, line.body, headers)
        return AnswerRecord(
            place=line.place,
            custom_id=line.custom_id,
            id=new_id("batch_req_", now),
            status=found.status,
            request_id=found.headers.get(HEADER, b"").decode("latin-1"),
            body=_json(found.body),
        )


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
