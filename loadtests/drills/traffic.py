"""Steady streaming traffic whose every answer is judged: right version, wrong version, failed, refused."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field

import aiohttp

from loadtests.bench.streams import StreamTiming, stream
from loadtests.markers import marker_of

MODEL = "support"


@dataclass(slots=True)
class ClientTally:
    """What the clients saw. `problems` keeps the first few sentences of every kind of failure."""

    ok: int = 0
    wrong: int = 0
    while_down: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def fail(self, kind: str, detail: str, *, down: bool) -> None:
        """Count a failure: one while the engine was down on purpose, or one that must not be."""
        (self.while_down if down else self.failed)[kind] += 1
        if not down and len(self.problems) < 20:
            self.problems.append(f"{kind}: {detail}")


@dataclass(slots=True)
class DrillTraffic:
    """Clients that stream without pause until `stop` is set.

    `expected` maps a version's name to its marker. While `down` is set, failures are the drill's own doing
    (a kill -9 and the restart after it).
    """

    url: str
    expected: dict[str, str]
    clients: int = 8
    tally: ClientTally = field(default_factory=ClientTally)
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    down: bool = False

    async def run(self) -> None:
        """Run the clients to the end."""
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(
            connector=connector, timeout=aiohttp.ClientTimeout(total=120)
        ) as session:
            await asyncio.gather(*(self._client(session) for _ in range(self.clients)))

    async def _client(self, session: aiohttp.ClientSession) -> None:
        while not self.stop.is_set():
            down_before = self.down
            try:
                answer = await stream(session, self.url, MODEL, "Hello there!", max_tokens=12)
            except aiohttp.ClientResponseError as error:
                self.tally.fail(f"status {error.status}", error.message, down=down_before or self.down)
                await asyncio.sleep(0.5)
            except aiohttp.ClientConnectorError as error:
                # A refused connection is never anybody's doing: the launcher holds the port.
                self.tally.fail("refused", str(error), down=False)
                await asyncio.sleep(0.5)
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                self.tally.fail(type(error).__name__, str(error), down=down_before or self.down)
                await asyncio.sleep(0.5)
            else:
                self._judge(answer, down=down_before or self.down)

    def _judge(self, answer: StreamTiming, *, down: bool) -> None:
        if not answer.tokens:
            self.tally.fail("cut stream", f"{len(answer.arrivals)} pieces, no end", down=down)
        elif self.expected.get(answer.model) == marker_of(answer.text):
            self.tally.ok += 1
        else:
            self.tally.wrong += 1
            self.tally.problems.append(f"{time.time():.1f}: {answer.model} said {answer.text[:40]!r}")
