"""Users while something fails: they ask, rate each answer, and keep what they were told.

Beside them one looks at /readyz all the time, and one asks with the key that is about to be revoked.
Every call ends: nobody waits longer than `CALL_SECONDS`, and a call that took that long counts as hung.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import httpx

CALL_SECONDS = 90.0
CLIENTS = 4
LOOK_SECONDS = 0.1
FLUSH_SECONDS = 1.5
"""Ratings wait in memory for a second at most, and take a moment to be written."""


@dataclass(frozen=True, slots=True)
class CallRecord:
    """One call: began and ended (monotonic seconds), its status (0: no answer) and error code."""

    began: float
    ended: float
    status: int
    code: str = ""

    def __str__(self) -> str:
        return f"{self.status} {self.code}".strip()


@dataclass(frozen=True, slots=True)
class ReadinessSample:
    """What /readyz said from `at` on: its status, its word, and the reasons or problems, as sentences."""

    at: float
    status: int
    word: str
    why: tuple[str, ...] = ()


@dataclass(slots=True)
class FaultTraffic:
    """`CLIENTS` users of `model` with `key`, until `stop`; `leaver` is the key that will be revoked."""

    url: str
    model: str
    key: str
    leaver: str
    asked: list[CallRecord] = field(default_factory=list)
    rated: list[CallRecord] = field(default_factory=list)
    left: list[CallRecord] = field(default_factory=list)
    looks: list[ReadinessSample] = field(default_factory=list)
    kept: dict[str, float] = field(default_factory=dict)
    """Ratings that were answered 202, by what they say, and when."""
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    async def run(self) -> None:
        """Ask, rate and look to the end."""
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        async with httpx.AsyncClient(base_url=self.url, timeout=CALL_SECONDS, limits=limits) as client:
            users = [self._user(client) for _ in range(CLIENTS)]
            await asyncio.gather(*users, self._look(client), self._leave(client))

    async def call(
        self, client: httpx.AsyncClient, path: str, body: object, key: str
    ) -> tuple[CallRecord, object]:
        """Post `body`, and return the call with the parsed answer (None where there is none)."""
        began = time.monotonic()
        try:
            answer = await client.post(path, json=body, headers={"authorization": f"Bearer {key}"})
            said = answer.json() if answer.content else None
        except (httpx.HTTPError, json.JSONDecodeError) as failed:
            return CallRecord(began, time.monotonic(), 0, type(failed).__name__), None
        error = said.get("error") if isinstance(said, dict) else None
        code = str(error.get("code") or error.get("type")) if isinstance(error, dict) else ""
        return CallRecord(began, time.monotonic(), answer.status_code, code), said

    def failures(self, begin: float, end: float) -> Counter[str]:
        """Return what users heard instead of an answer, of calls that began between `begin` and `end`."""
        return Counter(str(one) for one in self.asked if begin <= one.began < end and one.status != 200)

    def answered_after(self, begin: float) -> float | None:
        """Return the seconds from `begin` to the first answer to a call that began later."""
        return _first(self.asked, begin, {200})

    def refused_after(self, begin: float) -> float | None:
        """Return the seconds from `begin` until the leaver was told 401 or 403."""
        return _first(self.left, begin, {401, 403})

    def last_let_in(self, begin: float) -> float:
        """Return the seconds from `begin` to the last call of the leaver that was let in; 0: none."""
        let_in = (one.began - begin for one in self.left if one.status == 200 and one.began >= begin)
        return max(let_in, default=0.0)

    def seen_after(self, begin: float, *words: str) -> float | None:
        """Return the seconds from `begin` until /readyz said one of `words`; 0 where it did so then."""
        for look, after in zip(self.looks, [*self.looks[1:], None], strict=True):
            if look.word in words and (after is None or after.at >= begin):
                return max(0.0, look.at - begin)
        return None

    def forgive(self, died: float) -> None:
        """Expect no rating of the moment before a kill -9: feedback is written once a second."""
        self.kept = {note: at for note, at in self.kept.items() if at < died - FLUSH_SECONDS}

    async def _user(self, client: httpx.AsyncClient) -> None:
        while not self.stop.is_set():
            number = next(self._numbers)
            body = {
                "model": self.model,
                "messages": [{"role": "user", "content": f"Question {number}: who are you?"}],
                "max_tokens": 4,
                "temperature": 0,
            }
            call, said = await self.call(client, "/v1/chat/completions", body, self.key)
            self.asked.append(call)
            if call.status == 200 and isinstance(said, dict):
                note = f"drill-{number}"
                rating = {"response_id": said["id"], "score": 0.9, "comment": note}
                rated, _ = await self.call(client, "/v1/feedback", rating, self.key)
                self.rated.append(rated)
                if rated.status == 202:
                    self.kept[note] = rated.ended
            await asyncio.sleep(0.05 if call.status == 200 else 0.5)

    async def _leave(self, client: httpx.AsyncClient) -> None:
        while not self.stop.is_set():
            call, _ = await self.call(client, "/v1/feedback", {"score": 2}, self.leaver)
            # A wrong body: who may enter is told 400, at no cost to the engine.
            status = 200 if call.status in {400, 422} else call.status
            self.left.append(CallRecord(call.began, call.ended, status, call.code))
            await asyncio.sleep(LOOK_SECONDS)

    async def _look(self, client: httpx.AsyncClient) -> None:
        while not self.stop.is_set():
            try:
                answer = await client.get("/readyz", timeout=5)
                said = answer.json()
                word = str(said.get("status", "")) or ("not ready" if answer.status_code == 503 else "?")
                look = ReadinessSample(time.monotonic(), answer.status_code, word, _sentences(said))
            except (httpx.HTTPError, json.JSONDecodeError) as error:
                look = ReadinessSample(time.monotonic(), 0, type(error).__name__)
            last = self.looks[-1] if self.looks else ReadinessSample(0.0, -1, "")
            if (last.status, last.word) != (look.status, look.word) or len(look.why) > len(last.why):
                self.looks.append(look)
            await asyncio.sleep(LOOK_SECONDS)


def _first(calls: Iterable[CallRecord], begin: float, statuses: set[int]) -> float | None:
    ended = (one.ended - begin for one in calls if one.began >= begin and one.status in statuses)
    return min(ended, default=None)


def _sentences(said: object) -> tuple[str, ...]:
    if not isinstance(said, dict):
        return ()
    found = said.get("problems") or said.get("reasons") or said.get("error") or []
    return tuple(map(str, found)) if isinstance(found, list) else (str(found),)
