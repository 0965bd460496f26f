"""More versions than a batch can mix: admitted by version, in turns, none waits for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from registry.records import Version
from serve.errors import Busy
from serve.router.residents.residency import Residency
from serve.router.residents.slot import ResidentSlot
from serve.router.residents.turns import EXTRA
from serve.router.telemetry.metrics import RouterMetrics
from tests.fakes.adapters import make_adapter
from tests.fakes.engine import FakeEngine

SLOTS = 2
TURNS = SLOTS + EXTRA


class TurnHouse:
    """A residency whose engine mixes two versions, with requests that last as long as a test says."""

    def __init__(self, folder: Path, capacity: int, turn_seconds: float) -> None:
        self.folder = folder
        self.engine = FakeEngine(capacity=capacity, slots=SLOTS)
        self.order: list[str] = []
        self.most = 0

        async def prove(version: Version) -> None:
            await asyncio.sleep(0)

        self.residency = Residency(
            self.engine, lambda _: None, lambda _: None, prove, RouterMetrics("r1"), turn_seconds=turn_seconds
        )

    def slot(self, name: str) -> ResidentSlot:
        path = self.folder / name
        if not path.exists():
            make_adapter(path, seed=len(list(self.folder.iterdir())))
        return self.residency.slot(
            Version(name, 1, f"sha256:{name}", 0.0, "", "me", 8, ("q_proj",), 1, (), path)
        )

    async def ask(self, name: str, seconds: float) -> None:
        """Use a version for a while."""
        slot = self.slot(name)
        await self.residency.acquire(slot)
        self.order.append(name)
        self.most = max(self.most, sum(bool(one.in_use) for one in self.residency._slots.values()))
        try:
            assert slot.name in self.engine.resident(), "in use, and not loaded"
            await asyncio.sleep(seconds)
        finally:
            self.residency.release(slot)

    async def keep_asking(self, name: str, seconds: float) -> None:
        """Use a version for ever, with two requests at any time."""

        async def client() -> None:
            while True:
                await self.ask(name, seconds)

        await asyncio.gather(client(), client())


def play(
    folder: Path,
    scenario: Callable[[TurnHouse], Awaitable[None]],
    *,
    capacity: int = 8,
    turn_seconds: float = 60.0,
) -> TurnHouse:
    async def run() -> TurnHouse:
        house = TurnHouse(folder, capacity, turn_seconds)
        await asyncio.wait_for(scenario(house), 20)
        return house

    return asyncio.run(run())


def test_no_more_versions_than_turns_are_in_use_at_once(tmp_path: Path) -> None:
    async def scenario(house: TurnHouse) -> None:
        await asyncio.gather(*(house.ask(name, 0.005) for name in "abcdefgh" * 3))

    house = play(tmp_path, scenario)
    assert house.most == TURNS
    assert len(house.order) == 24


def test_all_that_wait_for_a_version_come_in_together(tmp_path: Path) -> None:
    async def scenario(house: TurnHouse) -> None:
        await asyncio.gather(*(house.ask(name, 0) for name in "abcdef"))
        house.order.clear()
        await asyncio.gather(*(house.ask(name, 0.02) for name in "abcdef" * 3))

    order = play(tmp_path, scenario).order
    assert order[:TURNS] == ["a", "b", "c"], "there was no need to wait"
    waiting = order[3 * TURNS :]
    assert sorted(waiting) == [*"ddd", *"eee", *"fff"]
    assert waiting == [*"ddd", *"eee", *"fff"], "the one that waited longest first, and all of it"


def test_a_version_that_is_asked_for_all_the_time_does_not_starve_another(tmp_path: Path) -> None:
    async def scenario(house: TurnHouse) -> None:
        busy = [asyncio.create_task(house.keep_asking(name, 0.01)) for name in "abc"]
        await asyncio.sleep(0.1)
        await house.ask("d", 0.01)
        for one in busy:
            one.cancel()

    assert "d" in play(tmp_path, scenario, turn_seconds=0.1).order


def test_nor_does_it_keep_its_place_in_memory_for_ever(tmp_path: Path) -> None:
    async def scenario(house: TurnHouse) -> None:
        busy = [asyncio.create_task(house.keep_asking(name, 0.01)) for name in "ab"]
        await asyncio.sleep(0.1)
        for _ in range(3):
            await house.ask("c", 0.01)
        assert set(house.order[-20:]) >= {"a", "b"}, "they come back"
        for one in busy:
            one.cancel()

    play(tmp_path, scenario, capacity=2, turn_seconds=0.1)


def test_a_pinned_version_is_closed_last(tmp_path: Path) -> None:
    async def scenario(house: TurnHouse) -> None:
        busy = [asyncio.create_task(house.keep_asking(name, 0.01)) for name in "abc"]
        await asyncio.sleep(0.1)
        house.residency.pin(["a@1", "b@1"])
        asked = asyncio.create_task(house.ask("d", 0.05))
        async with asyncio.timeout(5):
            while not any(house.slot(name).closed for name in "abc"):  # noqa: ASYNC110 - as a bystander sees it
                await asyncio.sleep(0.001)
        assert house.slot("c").closed
        assert not house.slot("a").closed
        await asked
        for one in busy:
            one.cancel()

    play(tmp_path, scenario, turn_seconds=0.05)


def test_a_request_that_leaves_its_place_in_the_line_hinders_nobody(tmp_path: Path) -> None:
    async def scenario(house: TurnHouse) -> None:
        held = [asyncio.create_task(house.ask(name, 0.1)) for name in "abc"]
        await asyncio.sleep(0.05)
        gone = asyncio.create_task(house.ask("d", 5))
        stays = asyncio.create_task(house.ask("e", 0.01))
        await asyncio.sleep(0.01)
        gone.cancel()
        await asyncio.gather(*held, stays)
        assert house.residency.turns.waiting == 0
        assert not house.slot("d").in_use

    assert "d" not in play(tmp_path, scenario).order


def test_who_is_told_and_leaves_in_the_same_moment_gives_the_turn_back(tmp_path: Path) -> None:
    async def scenario(house: TurnHouse) -> None:
        slots = [house.slot(name) for name in "abcd"]
        for slot in slots[:TURNS]:
            await house.residency.acquire(slot)
        waits = asyncio.create_task(house.residency.acquire(slots[3]))
        await asyncio.sleep(0.05)
        house.residency.release(slots[0])
        waits.cancel()  # before it runs again
        with pytest.raises(asyncio.CancelledError):
            await waits
        assert slots[3].in_use == 0
        for slot in slots[1:TURNS]:
            house.residency.release(slot)
        await asyncio.gather(*(house.ask(name, 0) for name in "abcd"))

    play(tmp_path, scenario)


def test_a_wait_has_an_end(tmp_path: Path) -> None:
    async def scenario(house: TurnHouse) -> None:
        house.residency.timeout_seconds = 0.1
        for name in "abc":
            await house.residency.acquire(house.slot(name))
        with pytest.raises(Busy, match="want of room"):
            await house.ask("d", 0)
        house.residency.timeout_seconds = 10
        for name in "abc":
            house.residency.release(house.slot(name))
        await house.ask("d", 0)
        assert house.residency.turns.waiting == 0

    play(tmp_path, scenario)


def test_patience_that_met_a_long_answer_closes_another(tmp_path: Path) -> None:
    async def scenario(house: TurnHouse) -> None:
        long = [asyncio.create_task(house.ask(name, 60)) for name in "ab"]
        await asyncio.sleep(0.05)
        busy = asyncio.create_task(house.keep_asking("c", 0.01))
        await asyncio.sleep(0.05)
        await house.ask("d", 0.01)
        for one in (*long, busy):
            one.cancel()

    assert "d" in play(tmp_path, scenario, turn_seconds=0.1).order


def test_what_was_closed_for_somebody_who_left_goes_on(tmp_path: Path) -> None:
    async def scenario(house: TurnHouse) -> None:
        await house.ask("d", 0)
        long = [asyncio.create_task(house.ask(name, 60)) for name in "abc"]
        await asyncio.sleep(0.05)
        waits = asyncio.create_task(house.ask("d", 0.01))
        await asyncio.sleep(0.2)
        closed = next(name for name in "abc" if house.slot(name).closed)
        second = asyncio.create_task(house.ask(closed, 0.01))
        await asyncio.sleep(0.01)
        assert not second.done()
        waits.cancel()
        await second
        for one in long:
            one.cancel()

    play(tmp_path, scenario, turn_seconds=0.05)
