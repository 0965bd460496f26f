"""Which versions are loaded: single-flight loads, room by least recent use, and what is in use.

Owns the engine's adapters: nobody else loads or unloads. Runs on one event loop, so a state is never
seen half-changed between two awaits. Invariants: the engine reads nothing but plain files of the published
length; they are hashed beside that, and a version is verified and proved before it is `ready`; a version in
use is never unloaded; a broken version fails alone, and its failure is remembered for a while.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field

from registry.errors import WardrobeError
from registry.records import Version
from serve.engine.interface import Engine
from serve.errors import Busy, LoadFailed
from serve.router.telemetry.metrics import RouterMetrics

_log = logging.getLogger("wardrobe.router")

FIRST_RETRY_SECONDS = 5.0
LONGEST_RETRY_SECONDS = 300.0


@dataclass(slots=True, eq=False)
class ResidentSlot:
    """One version's place: `ready` means loaded and proved.

    `in_use` counts requests to their stream's end, the last of which ended at `released`; `waiting` those
    that wait for the load.
    """

    version: Version
    ready: bool = False
    in_use: int = 0
    waiting: int = 0
    last_used: float = 0.0
    released: float = -math.inf
    pinned: bool = False
    evicted: bool = False
    attempts: int = 0
    retry_at: float = 0.0
    failure: WardrobeError | None = None
    task: asyncio.Task[None] | None = None

    @property
    def name(self) -> str:
        """Return the engine's name."""
        return self.version.name

    def due(self, now: float) -> bool:
        """Return True when a load may be tried (again)."""
        return not self.ready and self.task is None and (self.failure is None or now >= self.retry_at)


@dataclass(slots=True)
class Residency:
    """The loaded versions of one engine.

    `glance` looks whether a version's files are there, plain and as long as published, and `verify` hashes
    them (both blocking, called in a thread); `prove` raises when a loaded version cannot be told from the
    base. All raise WardrobeError. `settled` is called after each load, whatever became of it.
    """

    engine: Engine
    glance: Callable[[Version], None]
    verify: Callable[[Version], None]
    prove: Callable[[Version], Awaitable[None]]
    metrics: RouterMetrics
    timeout_seconds: float = 60.0
    clock: Callable[[], float] = time.monotonic
    settled: Callable[[], None] = lambda: None
    _slots: dict[str, ResidentSlot] = field(default_factory=dict)
    _held: set[str] = field(default_factory=set)
    _waiting: int = 0
    _freed: asyncio.Event = field(default_factory=asyncio.Event)

    def slot(self, version: Version) -> ResidentSlot:
        """Return the place of a version, loaded or not."""
        slot = self._slots.get(version.name)
        if slot is None:
            slot = self._slots[version.name] = ResidentSlot(version)
        return slot

    def resident(self) -> tuple[str, ...]:
        """Return the names that are ready, sorted."""
        return tuple(sorted(name for name, slot in self._slots.items() if slot.ready))

    def take(self, slot: ResidentSlot, now: float) -> bool:
        """Count one use of a version that is ready, and return True; else return False."""
        if not slot.ready:
            return False
        slot.in_use += 1
        slot.last_used = now
        return True

    async def acquire(self, slot: ResidentSlot) -> None:
        """Have the version ready and count one use of it; `release` gives it back.

        Raises: LoadFailed: it cannot be served now (also remembered from a moment ago). Busy: no room.
        """
        while not self.take(slot, self.clock()):  # it may be unloaded again before a waiter's turn comes
            await self._ensure(slot)

    def release(self, slot: ResidentSlot) -> None:
        """End one use of a version."""
        slot.in_use -= 1
        slot.released = self.clock()
        if self._waiting and not slot.in_use:
            self._freed.set()

    def loading_seconds(self) -> float:
        """Return how long a load that is going on may take, 0 when there is none."""
        return self.timeout_seconds if any(slot.task is not None for slot in self._slots.values()) else 0.0

    @property
    def loading(self) -> int:
        """Return how many loads are going on."""
        return sum(slot.task is not None for slot in self._slots.values())

    def drift(self) -> int:
        """Return how many pinned versions are not ready, without those that made room for others."""
        return sum(slot.pinned and not slot.ready and not slot.evicted for slot in self._slots.values())

    def at_work(self, since: float = math.inf) -> tuple[str, ...]:
        """Return the names in use or loading now, or in use after `since` (this residency's clock)."""
        return tuple(
            sorted(
                name
                for name, slot in self._slots.items()
                if slot.in_use or slot.task is not None or slot.released >= since
            )
        )

    def failure(self, name: str) -> tuple[str, int]:
        """Return why a version could not be loaded here when it was last tried, and how often it was."""
        slot = self._slots.get(name)
        if slot is None or slot.failure is None:
            return "", 0
        return str(slot.failure), slot.attempts

    def begin(self, slot: ResidentSlot) -> None:
        """Begin to load a version that is due, for nobody in particular; its slot tells the end."""
        if slot.due(self.clock()) and self._slots.get(slot.name) is slot and self._has_room():
            self._start(slot)

    async def load(self, slot: ResidentSlot) -> None:
        """Have the version ready without using it.

        Raises: LoadFailed, Busy: as `acquire`.
        """
        await self.acquire(slot)
        self.release(slot)

    def pin(self, names: Iterable[str]) -> None:
        """Name the versions that are unloaded last."""
        wanted = set(names)
        for name, slot in self._slots.items():
            slot.pinned = name in wanted

    async def retire(self, gone: Callable[[Version], bool]) -> None:
        """Unload what is `gone` and idle; what is in use is left to a later call.

        Raises: ExceptionGroup: of what the engine would not let go; the others are unloaded.
        """
        errors: list[Exception] = []
        for slot in [slot for slot in self._slots.values() if gone(slot.version)]:
            if slot.in_use or slot.waiting or slot.task is not None:
                continue
            try:
                await self._unload(slot)
            except Exception as error:  # noqa: BLE001 - told below, all together
                errors.append(error)
            else:
                self._slots.pop(slot.name, None)
        if errors:
            raise ExceptionGroup("versions that could not be unloaded", errors)

    async def _ensure(self, slot: ResidentSlot) -> None:
        now = self.clock()
        if self._slots.setdefault(slot.name, slot) is not slot:
            # It was retired after this request had found it, and has come back since.
            raise Busy(slot.name, "is being unloaded", "try again", rejection="queue_timeout")
        if slot.task is None:
            if slot.failure is not None and now < slot.retry_at:
                raise _again(slot, slot.failure, slot.retry_at - now)
            self._start(slot)
        assert slot.task is not None, "started"
        slot.waiting += 1
        try:
            async with asyncio.timeout(self.timeout_seconds):
                await asyncio.shield(slot.task)
        except TimeoutError:
            raise _no_room(slot, self.timeout_seconds) from None
        finally:
            slot.waiting -= 1
            if not slot.waiting:
                self._freed.set()  # so that a load that waits for room gives up

    def _start(self, slot: ResidentSlot) -> None:
        slot.task = asyncio.create_task(self._bring_in(slot), name=f"load {slot.name}")
        # Everybody who waited may have left: the failure is kept in the slot, not in the task.
        slot.task.add_done_callback(lambda task: task.cancelled() or task.exception())

    async def _bring_in(self, slot: ResidentSlot) -> None:
        started, step = self.clock(), "verify"
        hashing: asyncio.Future[None] | None = None
        try:
            await asyncio.to_thread(self.glance, slot.version)
            step = "room"
            await self._make_room(slot)
            hashing = asyncio.ensure_future(asyncio.to_thread(self.verify, slot.version))
            step = "engine"
            await self._load(slot, hashing)
            step = "verify"
            await hashing
            step = "proof"
            await self.prove(slot.version)
        except Exception as error:
            if hashing is not None and hashing.done() and hashing.exception() is error:
                step = "verify"
            self.metrics.count_load("failed", step, "disk", self.clock() - started)
            await self._give_up(slot, error)
            raise slot.failure or error from error
        finally:
            slot.task = None
            self.settled()
        slot.ready, slot.evicted, slot.failure, slot.attempts = True, False, None, 0
        slot.last_used = self.clock()
        self.metrics.count_load("ok", "", "disk", self.clock() - started)

    async def _load(self, slot: ResidentSlot, hashing: asyncio.Future[None]) -> None:
        try:
            await self.engine.load(slot.name, slot.version.path)
        except Exception:
            await hashing  # files that are not as published say why better than the engine does
            raise

    async def _give_up(self, slot: ResidentSlot, error: Exception) -> None:
        if not isinstance(error, Busy):  # then the version is not to blame, and nothing is held against it
            slot.attempts += 1
            wait = min(FIRST_RETRY_SECONDS * 2 ** (slot.attempts - 1), LONGEST_RETRY_SECONDS)
            slot.retry_at = self.clock() + wait
            slot.failure = _failed(slot, error)
            _log.warning("%s", slot.failure)  # the requests that wait are told, but there may be none
        if slot.name in self._held:
            await self._unload(slot)

    async def _make_room(self, slot: ResidentSlot) -> None:
        while len(self._held) >= self.engine.capacity:
            victim = self._victim()
            if victim is not None:
                victim.evicted = True  # for room: asking brings it back, being stable does not
                await self._unload(victim)
                self.metrics.evictions += 1
            elif slot.waiting:
                await self._wait_for_room()
            else:
                raise _no_room(slot, self.timeout_seconds)
        self._held.add(slot.name)

    async def _wait_for_room(self) -> None:
        self._freed.clear()
        self._waiting += 1
        try:
            await self._freed.wait()
        finally:
            self._waiting -= 1

    def _has_room(self) -> bool:
        return len(self._held) < self.engine.capacity or self._victim() is not None

    def _victim(self) -> ResidentSlot | None:
        held = (self._slots[name] for name in self._held)
        idle = [slot for slot in held if not slot.in_use and not slot.waiting and slot.task is None]
        return min(idle, key=lambda slot: (slot.pinned, slot.last_used), default=None)

    async def _unload(self, slot: ResidentSlot) -> None:
        slot.ready = False  # at once, so that no request takes it while the engine lets it go
        if slot.name in self._held:
            await self.engine.unload(slot.name)
            self._held.discard(slot.name)  # not before: a place that was not freed is still taken
        self._freed.set()


def _no_room(slot: ResidentSlot, seconds: float) -> Busy:
    fact = f"was not loaded within {seconds:g} s, for want of room among versions in use, or of speed"
    return Busy(slot.name, fact, "try again, or raise max_cpu_loras", rejection="queue_timeout")


def _failed(slot: ResidentSlot, error: Exception) -> WardrobeError:
    if not isinstance(error, WardrobeError):
        return LoadFailed(slot.name, f"could not be loaded: {type(error).__name__}: {error}", "see the log")
    fact = error.fact if error.subject == slot.name else f"{error.subject}: {error.fact}"
    return LoadFailed(slot.name, f"could not be loaded: {fact}", error.remedy)


def _again(slot: ResidentSlot, failure: WardrobeError, seconds: float) -> LoadFailed:
    return LoadFailed(slot.name, failure.fact, f"it is tried again in {max(1, round(seconds))} s")
