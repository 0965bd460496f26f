"""Which versions are loaded, on a fake engine with real folders and a clock of our own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from registry.errors import Quarantined
from registry.records import Version
from serve.errors import Busy, LoadFailed
from serve.router.residents.residency import FIRST_RETRY_SECONDS, Residency
from serve.router.residents.slot import ResidentSlot
from serve.router.telemetry.metrics import RouterMetrics
from tests.fakes.adapters import make_adapter
from tests.fakes.engine import FakeEngine


@dataclass
class House:
    """A residency over a fake engine, with handles for what goes wrong."""

    folder: Path
    engine: FakeEngine
    now: float = 100.0
    misshapen: dict[str, Exception] = field(default_factory=dict)
    broken: dict[str, Exception] = field(default_factory=dict)
    unproved: dict[str, Exception] = field(default_factory=dict)
    proofs: list[str] = field(default_factory=list)
    metrics: RouterMetrics = field(default_factory=lambda: RouterMetrics("r1"))
    timeout_seconds: float = 5.0

    def __post_init__(self) -> None:
        self.residency = Residency(
            self.engine,
            self.glance,
            self.verify,
            self.prove,
            self.metrics,
            self.timeout_seconds,
            lambda: self.now,
        )

    def glance(self, version: Version) -> None:
        if version.name in self.misshapen:
            raise self.misshapen[version.name]

    def verify(self, version: Version) -> None:
        if version.name in self.broken:
            raise self.broken[version.name]

    async def prove(self, version: Version) -> None:
        self.proofs.append(version.name)
        if version.name in self.unproved:
            raise self.unproved[version.name]

    def slot(self, name: str) -> ResidentSlot:
        return self.residency.slot(self.version(name))

    def version(self, name: str) -> Version:
        adapter, _, number = name.partition("@")
        path = self.folder / name
        if not path.exists():
            make_adapter(path, seed=len(list(self.folder.iterdir())))
        return Version(adapter, int(number), f"sha256:{name}", 0.0, "", "me", 8, ("q_proj",), 1, (), path)

    async def use(self, name: str) -> ResidentSlot:
        slot = self.slot(name)
        self.now += 1
        await self.residency.acquire(slot)
        return slot

    async def touch(self, *names: str) -> None:
        for name in names:
            self.residency.release(await self.use(name))

    def loads(self, name: str) -> int:
        return self.engine.calls.count(("load", name))


Scenario = Callable[[House], Awaitable[None]]


def play(tmp_path: Path, scenario: Scenario, *, capacity: int = 2, timeout_seconds: float = 5.0) -> House:
    house = House(tmp_path, FakeEngine(capacity=capacity), timeout_seconds=timeout_seconds)
    asyncio.run(asyncio.wait_for(scenario(house), 20))
    return house


def test_many_requests_for_a_cold_version_load_it_once(tmp_path: Path) -> None:
    async def scenario(house: House) -> None:
        house.engine.load_seconds = 0.02
        slots = await asyncio.gather(*(house.use("a@1") for _ in range(50)))
        assert slots[0].in_use == 50

    house = play(tmp_path, scenario)
    assert house.engine.calls == [("load", "a@1")]
    assert house.proofs == ["a@1"]
    assert house.metrics.loads == {("ok", ""): 1}


def test_the_least_recently_used_idle_version_makes_room(tmp_path: Path) -> None:
    async def scenario(house: House) -> None:
        await house.touch("a@1", "b@1", "a@1", "c@1")

    house = play(tmp_path, scenario)
    assert house.engine.resident() == {"a@1", "c@1"}
    assert house.residency.resident() == ("a@1", "c@1")
    assert house.metrics.evictions == 1


def test_a_pinned_version_is_evicted_last(tmp_path: Path) -> None:
    async def scenario(house: House) -> None:
        await house.touch("a@1", "b@1")
        house.residency.pin(["a@1"])
        await house.touch("c@1", "d@1")
        assert house.engine.resident() == {"a@1", "d@1"}
        house.residency.pin(["a@1", "d@1"])
        await house.touch("e@1")

    assert play(tmp_path, scenario).engine.resident() == {"d@1", "e@1"}


def test_a_version_in_use_is_never_evicted_and_a_waiter_gets_the_first_room(tmp_path: Path) -> None:
    async def scenario(house: House) -> None:
        first, _second = await house.use("a@1"), await house.use("b@1")
        waiter = asyncio.create_task(house.use("c@1"))
        await asyncio.sleep(0.05)
        assert not waiter.done()
        assert house.engine.resident() == {"a@1", "b@1"}
        house.residency.release(first)
        assert (await waiter).name == "c@1"
        assert house.engine.resident() == {"b@1", "c@1"}

    play(tmp_path, scenario)


def test_no_room_in_time_is_busy_and_holds_nothing_against_the_version(tmp_path: Path) -> None:
    async def scenario(house: House) -> None:
        first, _second = await house.use("a@1"), await house.use("b@1")
        with pytest.raises(Busy, match=r"in use|not loaded within") as caught:
            await house.use("c@1")
        assert caught.value.rejection == "queue_timeout"
        house.residency.release(first)
        await house.touch("c@1")

    play(tmp_path, scenario, timeout_seconds=0.05)


def test_more_adapters_than_places_all_get_answers_without_deadlock(tmp_path: Path) -> None:
    async def ask(house: House, name: str) -> None:
        for _ in range(5):
            slot = await house.use(name)
            assert name in house.engine.resident()
            await asyncio.sleep(0.001)
            assert name in house.engine.resident(), "unloaded while in use"
            assert len(house.engine.resident()) <= 2
            house.residency.release(slot)

    async def scenario(house: House) -> None:
        await asyncio.gather(*(ask(house, f"{letter}@1") for letter in "abcdef"))

    assert play(tmp_path, scenario).metrics.evictions >= 4


@pytest.mark.parametrize("step", ["verify", "engine", "proof"])
def test_a_broken_version_fails_alone_and_leaves_nothing_loaded(tmp_path: Path, step: str) -> None:
    async def scenario(house: House) -> None:
        wrong = Quarantined("bad@1", "adapter_model.safetensors has changed")
        if step == "verify":
            house.broken["bad@1"] = wrong
        elif step == "engine":
            house.engine.refusals["bad@1"] = "adapter_model.safetensors has changed"
        else:
            house.unproved["bad@1"] = wrong
        with pytest.raises(LoadFailed, match=r"bad@1: could not be loaded: .* has changed"):
            await house.use("bad@1")
        await house.touch("good@1")

    house = play(tmp_path, scenario)
    assert house.engine.resident() == {"good@1"}
    assert house.metrics.loads == {("failed", step): 1, ("ok", ""): 1}


def test_a_failure_is_remembered_and_tried_again_later(tmp_path: Path) -> None:
    async def scenario(house: House) -> None:
        house.engine.refusals["a@1"] = "bad weights"
        for _ in range(3):
            with pytest.raises(LoadFailed, match="bad weights"):
                await house.use("a@1")
        assert house.loads("a@1") == 1
        house.now += FIRST_RETRY_SECONDS
        del house.engine.refusals["a@1"]
        await house.touch("a@1")
        assert house.loads("a@1") == 2

    play(tmp_path, scenario)


def test_the_time_between_tries_grows(tmp_path: Path) -> None:
    async def scenario(house: House) -> None:
        house.engine.refusals["a@1"] = "bad weights"
        waits = []
        for _ in range(8):
            with pytest.raises(LoadFailed):
                await house.use("a@1")
            waits.append(house.slot("a@1").retry_at - house.now)
            house.now = house.slot("a@1").retry_at
        assert waits == [5, 10, 20, 40, 80, 160, 300, 300]

    play(tmp_path, scenario)


def test_an_error_nobody_foresaw_is_a_failed_load_too(tmp_path: Path) -> None:
    async def scenario(house: House) -> None:
        house.broken["a@1"] = OSError("the disk is gone")
        with pytest.raises(LoadFailed, match="OSError: the disk is gone"):
            await house.use("a@1")

    play(tmp_path, scenario)


def test_what_is_gone_is_unloaded_once_nobody_uses_it(tmp_path: Path) -> None:
    async def scenario(house: House) -> None:
        slot = await house.use("a@1")
        await house.touch("b@1")
        await house.residency.retire(lambda version: version.adapter == "a")
        assert house.engine.resident() == {"a@1", "b@1"}
        house.residency.release(slot)
        await house.residency.retire(lambda version: version.adapter == "a")
        assert house.engine.resident() == {"b@1"}

    play(tmp_path, scenario)


def test_a_straggler_of_a_retired_version_loads_it_once_more_and_it_can_go_again(tmp_path: Path) -> None:
    async def scenario(house: House) -> None:
        await house.touch("a@1", "b@1")
        straggler = house.slot("a@1")
        await house.residency.retire(lambda version: version.adapter == "a")
        house.now += 1
        await house.residency.acquire(straggler)
        house.residency.release(straggler)
        await house.touch("c@1")
        assert house.engine.resident() == {"a@1", "c@1"}
        await house.residency.retire(lambda version: version.adapter == "a")
        assert house.engine.resident() == {"c@1"}

    play(tmp_path, scenario)


class ClingingEngine(FakeEngine):
    """An engine that never lets `a@1` go."""

    async def unload(self, name: str) -> None:
        if name == "a@1":
            raise RuntimeError("the engine is confused")
        await super().unload(name)


def test_what_the_engine_keeps_still_takes_its_place_and_holds_up_nobody_else(tmp_path: Path) -> None:
    async def scenario() -> None:
        house = House(tmp_path, ClingingEngine(capacity=3))
        await house.touch("a@1", "b@1")
        with pytest.raises(ExceptionGroup, match="could not be unloaded"):
            await house.residency.retire(lambda _: True)
        assert house.engine.resident() == {"a@1"}
        await house.touch("c@1", "d@1")
        assert house.engine.resident() == {"a@1", "c@1", "d@1"}

    asyncio.run(scenario())


def test_a_client_that_stops_waiting_does_not_stop_the_load(tmp_path: Path) -> None:
    async def scenario(house: House) -> None:
        house.engine.load_seconds = 0.05
        impatient = asyncio.create_task(house.use("a@1"))
        await asyncio.sleep(0.01)
        impatient.cancel()
        await house.touch("a@1")
        assert house.slot("a@1").in_use == 0

    assert play(tmp_path, scenario).loads("a@1") == 1


class SlowToLetGo(FakeEngine):
    """An engine that takes its time to unload, or refuses to: `stubborn` names what it keeps."""

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity=capacity)
        self.stubborn: set[str] = set()

    async def unload(self, name: str) -> None:
        self.calls.append(("unload", name))
        await asyncio.sleep(0.05)
        if name in self.stubborn:
            raise RuntimeError("the engine would not")
        self._loaded.pop(name, None)


def test_a_version_that_is_asked_for_while_it_is_unloaded_is_loaded_once_and_stays(tmp_path: Path) -> None:
    async def scenario() -> None:
        house = House(tmp_path, SlowToLetGo(capacity=1))
        await house.touch("a@1")
        other = asyncio.create_task(house.use("b@1"))
        while ("unload", "a@1") not in house.engine.calls:  # noqa: ASYNC110 - as a bystander sees it
            await asyncio.sleep(0.001)
        again = asyncio.create_task(house.use("a@1"))
        await other
        house.residency.release(house.slot("b@1"))
        slot = await again
        await asyncio.sleep(0.2)
        assert slot.in_use == 1
        assert slot.ready
        assert house.engine.resident() == {"a@1"}
        assert house.loads("a@1") == 2, "once before, and once again"

    asyncio.run(asyncio.wait_for(scenario(), 20))


def test_a_version_that_the_engine_keeps_fails_nobody_else(tmp_path: Path) -> None:
    async def scenario() -> None:
        engine = SlowToLetGo(capacity=2)
        house = House(tmp_path, engine)
        await house.touch("a@1", "b@1")
        engine.stubborn.add("a@1")
        await house.touch("c@1")
        assert house.residency.resident() == ("c@1",)
        assert house.slot("c@1").failure is None
        await house.touch("a@1")
        assert house.residency.resident() == ("a@1", "c@1"), "its own place was still its own"

    asyncio.run(asyncio.wait_for(scenario(), 20))


def test_files_are_looked_at_again_after_a_wait_for_room(tmp_path: Path) -> None:
    async def scenario(house: House) -> None:
        held = await house.use("a@1")
        waits = asyncio.create_task(house.use("b@1"))
        await asyncio.sleep(0.05)
        house.misshapen["b@1"] = Quarantined("b@1", "adapter_model.safetensors is not a plain file")
        house.residency.release(held)
        with pytest.raises(LoadFailed, match="not a plain file"):
            await waits
        assert house.loads("b@1") == 0

    play(tmp_path, scenario, capacity=1)
