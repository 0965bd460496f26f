"""What was counted is in the books once, whatever the clock and the disk do."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from registry.entries.keyring import Caller
from registry.entries.keys import KeyInfo
from registry.entries.rights import Group, GroupLimits, Scope
from registry.entries.usage.book import UsageBook, UsageReader
from registry.errors import DiskFull, StorageFailed
from serve.groups.admission import Admission
from serve.groups.books import UsageBooks
from serve.groups.counting import PromptCounter
from serve.outcomes import Outcome
from tests.fakes.clock import Clock

MIDNIGHT = 86_400.0 * 20_000
BEFORE, AFTER = "2024-10-03", "2024-10-04"
BUDGET = 10_000


async def _nobody(path: str, body: bytes) -> tuple[int, bytes]:
    raise AssertionError(f"nothing is counted: {path} {body!r}")


class _Desk:
    """The books of one replica, ten seconds before midnight."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.clock = Clock(MIDNIGHT - 10)
        key = KeyInfo("k", frozenset({Scope.INFER}), "", "", 0.0)
        self.caller = Caller("k", Group("g", limits=GroupLimits(tokens_per_day=BUDGET)), key)
        counter = PromptCounter("base", _nobody)
        self.admission = Admission("r1", 4_096, counter, {"k": self.caller}.get, clock=self.clock)
        self.books = UsageBooks(self.admission, root, "r1", list, wall=self.clock)

    def use(self, tokens: int) -> None:
        self.admission.ledger.count("g", "k", "support", Outcome.OK, (tokens, 0, 0))

    def pass_time(self, seconds: float) -> None:
        self.clock.now += seconds
        self.books.note()

    def written(self, day: str) -> int:
        return sum(row.tokens for row in UsageReader(self.root).day(day).rows)

    @property
    def left(self) -> int:
        purse = self.admission.purse(self.caller)
        assert purse is not None
        return purse.meters[0].room(self.clock())


@pytest.mark.parametrize("writes", [True, False])
def test_a_clock_that_goes_back_over_midnight_loses_nothing(tmp_path: Path, writes: bool) -> None:
    async def live() -> None:
        desk = _Desk(tmp_path)
        await desk.books.begin()
        for tokens, seconds in ((100, 20), (1_000, -20), (1, 20), (1, -20), (1, 0)):
            desk.use(tokens)
            if writes:
                await desk.books.write()
            desk.pass_time(seconds)
        await desk.books.write()
        assert (desk.written(BEFORE), desk.written(AFTER)) == (102, 1_001)
        assert desk.left == BUDGET - 102

    asyncio.run(live())


def test_a_clock_that_goes_to_another_year_and_back_loses_nothing(tmp_path: Path) -> None:
    async def live() -> None:
        desk = _Desk(tmp_path)
        await desk.books.begin()
        desk.use(100)
        for _ in range(4):
            desk.pass_time(400 * 86_400.0)
            desk.use(7)
            await desk.books.write()
        desk.pass_time(-4 * 400 * 86_400.0)
        desk.use(1)
        await desk.books.write()
        assert desk.written(BEFORE) == 101
        assert desk.left == BUDGET - 101

    asyncio.run(live())


def test_a_disk_that_fails_over_midnight_costs_no_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither what was written before the restart, nor what was counted while nothing could be read."""

    def fail(*_: object) -> None:
        raise DiskFull("disk", "is full", "free some")

    async def live() -> None:
        first = _Desk(tmp_path)
        await first.books.begin()
        first.use(100)
        await first.books.write()
        desk = _Desk(tmp_path)
        with monkeypatch.context() as broken:
            broken.setattr(UsageBook, "kept", fail)
            broken.setattr(UsageBook, "put", fail)
            await desk.books.begin()
            for tokens, seconds in ((10, 20), (2_000, 1)):
                desk.use(tokens)
                with pytest.raises(StorageFailed):
                    await desk.books.write()
                desk.pass_time(seconds)
        await desk.books.write()
        assert (desk.written(BEFORE), desk.written(AFTER)) == (110, 2_000)

    asyncio.run(live())
