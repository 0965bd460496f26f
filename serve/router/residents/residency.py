"""Which versions are loaded: single-flight loads, room by least recent use, and what is in use.

Owns the engine's adapters: nobody else loads or unloads. Runs on one event loop, so a state is never
seen half-changed between two awaits. Invariants: the engine reads nothing but plain files of the published
length; they are hashed beside that, and a version is verified and proved before it is `ready`; a version in
use is never unloaded; a broken version fails alone, and its failure is remembered for a while.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field

from registry.errors import InvalidAdapter, WardrobeError
from registry.records import Version
from serve.engine.interface import Engine
from serve.errors import Busy, LoadFailed
from serve.router.residents.slot import ResidentSlot, Ticket
from serve.router.residents.turns import Turns
from serve.router.telemetry.metrics import RouterMetrics

_log = logging.getLogger("wardrobe.router")

FIRST_RETRY_SECONDS = 5.0
LONGEST_RETRY_SECONDS = 300.0


@dataclass(slots=True)
class Residency:
    """The loaded versions of one engine.

    `glance` looks whether a version's files are there, plain and as long as published, and `verify` hashes
    them (both blocking, called in a thread); `prove` raises when a loaded version cannot be told from the
    base. All raise WardrobeError. `settled` is called after each load, whatever became of it; `gone` says
    that a version was deleted or set aside, which may happen while it is being loaded.
    """

    engine: Engine
    glance: Callable[[Version], None]
    verify: Callable[[Version], None]
    prove: Callable[[Version], Awaitable[None]]
    metrics: RouterMetrics
    timeout_seconds: float = 60.0
    clock: Callable[[], float] = time.monotonic
    settled: Callable[[], None] = lambda: None
    gone: Callable[[Version], bool] = lambda _: False
    turn_seconds: float = 2.0
    turns: Turns = field(init=False)
    _slots: dict[str, ResidentSlot] = field(default_factory=dict)
    _held: set[str] = field(default_factory=set)
    _line: deque[ResidentSlot] = field(default_factory=deque)
    _freed: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.turns = Turns(self.engine.slots, self.turn_seconds)

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
        """Count one use of a version that is ready and has a turn, and return True; else return False."""
        if not slot.ready or not self.turns.enter(slot):
            return False
        slot.last_used = now
        return True

    async def acquire(self, slot: ResidentSlot) -> None:
        """Have the version ready and count one use of it; `release` gives it back.

        Raises: LoadFailed: it cannot be served now (also remembered from a moment ago). Busy: no room.
        """
        if self.take(slot, self.clock()):
            return
        self._check(slot)
        ticket: Ticket = asyncio.get_running_loop().create_future()
        slot.tickets.append(ticket)
        if slot.ready:
            self.turns.line_up(slot)
        elif slot.task is None and not slot.leaving:
            self._start(slot)
        try:
            async with asyncio.timeout(self.timeout_seconds):
                await ticket
        except TimeoutError:
            self._give_back(slot, ticket)
            raise _no_room(slot, self.timeout_seconds) from None
        except asyncio.CancelledError:
            self._give_back(slot, ticket)
            raise
        slot.last_used = self.clock()

    def _give_back(self, slot: ResidentSlot, ticket: Ticket) -> None:
        if ticket in slot.tickets:
            slot.tickets.remove(ticket)
            if not slot.tickets:
                self.turns.forget(slot)
                self._freed.set()  # so that a load that waits for room gives up
        elif not ticket.cancelled() and ticket.exception() is None:
            self.release(slot)  # it was counted in the moment in which its holder left

    def release(self, slot: ResidentSlot) -> None:
        """End one use of a version."""
        slot.released = self.clock()
        self.turns.leave(slot)
        if not slot.in_use:
            self._freed.set()

    def loading_seconds(self) -> float:
        """Return how long a load that is going on may take, 0 when there is none."""
        return self.timeout_seconds if self.loading else 0.0

    @property
    def loading(self) -> int:
        """Return how many loads are going on."""
        return sum(slot.task is not None for slot in self._slots.values())

    def waiting(self) -> tuple[int, int]:
        """Return how many versions wait for a place in memory, and how many for a turn."""
        return len(self._line), self.turns.waiting

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
            if not slot.idle:
                continue
            try:
                await self._unload(slot)
            except Exception as error:  # noqa: BLE001 - told below, all together
                errors.append(error)
            else:
                if slot.idle:  # else somebody asked for it meanwhile, and will be told
                    self._slots.pop(slot.name, None)
        if errors:
            raise ExceptionGroup("versions that could not be unloaded", errors)

    def _check(self, slot: ResidentSlot) -> None:
        """Pass where a version may be waited for.

        Raises: Busy, LoadFailed.
        """
        if self._slots.setdefault(slot.name, slot) is not slot:
            # It was retired after this request had found it, and has come back since.
            raise Busy(slot.name, "is being unloaded", "try again", rejection="queue_timeout")
        now = self.clock()
        if slot.task is None and slot.failure is not None and now < slot.retry_at:
            raise _again(slot, slot.failure, slot.retry_at - now)

    def _start(self, slot: ResidentSlot) -> None:
        slot.task = asyncio.create_task(self._bring_in(slot), name=f"load {slot.name}")

    async def _bring_in(self, slot: ResidentSlot) -> None:
        started, step = self.clock(), "verify"
        hashing: asyncio.Future[None] | None = None
        held = ResidentSlot(slot.version)  # the proof's own use of a turn, which no request may join yet
        try:
            await asyncio.to_thread(self.glance, slot.version)
            step = "room"
            if await self._make_room(slot):
                await asyncio.to_thread(self.glance, slot.version)  # much may have happened meanwhile
            hashing = asyncio.ensure_future(asyncio.to_thread(self.verify, slot.version))
            step = "engine"
            await self._load(slot, hashing)
            step = "verify"
            await hashing
            step = "proof"
            await self._take_turn(held)
            await self.prove(slot.version)
            self._require_there(slot)
        except Exception as error:  # noqa: BLE001 - told to each of those who wait
            if hashing is not None and hashing.done() and hashing.exception() is error:
                step = "verify"
            self.metrics.count_load("failed", step, "disk", self.clock() - started)
            await self._give_up(slot, error)
            _fail(slot, slot.failure or error)
        else:
            slot.ready, slot.evicted, slot.closed = True, False, False
            slot.failure, slot.attempts = None, 0
            slot.last_used = self.clock()
            self.metrics.count_load("ok", "", "disk", self.clock() - started)
        finally:
            slot.task = None
            if held.in_use:
                self.turns.hand_over(held, slot)
            self.settled()

    def _require_there(self, slot: ResidentSlot) -> None:
        if self.gone(slot.version):
            raise _set_aside(slot)

    async def _take_turn(self, held: ResidentSlot) -> None:
        if not self.turns.enter(held):
            ticket: Ticket = asyncio.get_running_loop().create_future()
            held.tickets.append(ticket)
            self.turns.line_up(held)
            await ticket

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
            # Damage, for which it was set aside a moment ago, says more than that it was.
            taken = self.gone(slot.version) and not isinstance(error, InvalidAdapter)
            slot.failure = _set_aside(slot) if taken else _failed(slot, error)
            _log.warning("%s", slot.failure)  # the requests that wait are told, but there may be none
        if slot.name in self._held:
            await self._let_go(slot)

    async def _make_room(self, slot: ResidentSlot) -> bool:
        """Have a place, behind those who came before; return whether that took a wait."""
        if slot.name in self._held:  # it could not be unloaded when it was to make room
            return False
        self._line.append(slot)
        since, waited = self.clock(), False
        try:
            while self._line[0] is not slot or not await self._free_a_place():
                if not slot.tickets and not self._has_room():
                    raise _no_room(slot, self.timeout_seconds)
                if self.clock() - since >= self.turn_seconds:
                    self.turns.close_one()
                    since = self.clock()
                self.turns.want_room(wanted=True)
                self._freed.clear()
                waited = True
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self.turn_seconds):
                        await self._freed.wait()
            self._held.add(slot.name)
            return waited
        finally:
            self._line.remove(slot)
            self._freed.set()
            if not self._line:
                self.turns.want_room(wanted=False)

    async def _free_a_place(self) -> bool:
        while len(self._held) >= self.engine.capacity:
            victim = self._victim()
            if victim is None:
                return False
            victim.evicted = True  # for room: asking brings it back, being stable does not
            if await self._let_go(victim):
                self.metrics.evictions += 1
        return True

    async def _let_go(self, slot: ResidentSlot) -> bool:
        """Unload a version; one that the engine keeps goes on taking its place, and fails nobody else."""
        try:
            await self._unload(slot)
        except Exception:  # noqa: BLE001 - whatever it is, it is logged with its trace
            slot.stuck_until = self.clock() + FIRST_RETRY_SECONDS
            _log.exception("%s could not be unloaded", slot.name)
            return False
        return True

    def _has_room(self) -> bool:
        return len(self._held) < self.engine.capacity or self._victim() is not None

    def _victim(self) -> ResidentSlot | None:
        held, now = [self._slots[name] for name in self._held], self.clock()
        idle = [slot for slot in held if now >= slot.stuck_until and (slot.idle or _is_drained(slot))]
        return min(
            idle,
            key=lambda slot: (slot.standing_in, not slot.idle, slot.pinned, slot.last_used),
            default=None,
        )

    async def _unload(self, slot: ResidentSlot) -> None:
        slot.ready, slot.leaving = False, True  # at once: no request takes it while the engine lets it go
        self.turns.forget(slot)
        try:
            if slot.name in self._held:
                await self.engine.unload(slot.name)
                self._held.discard(slot.name)  # not before: a place that was not freed is still taken
        finally:
            slot.leaving = False
            self._freed.set()
            if (
                slot.tickets and slot.task is None
            ):  # asked for meanwhile, or closed: it comes back behind others
                self._start(slot)


def _is_drained(slot: ResidentSlot) -> bool:
    """Return whether a version was closed for others and its answers have ended; new requests wait for it."""
    return slot.closed and slot.ready and not slot.in_use and slot.task is None


def _fail(slot: ResidentSlot, error: Exception) -> None:
    """Tell those who wait that the version cannot be served."""
    tickets, slot.tickets = slot.tickets, []
    for ticket in tickets:
        if not ticket.done():
            ticket.set_exception(error)


def _no_room(slot: ResidentSlot, seconds: float) -> Busy:
    fact = f"was not loaded within {seconds:g} s, for want of room among versions in use, or of speed"
    return Busy(slot.name, fact, "try again, or raise max_cpu_loras", rejection="queue_timeout")


def _set_aside(slot: ResidentSlot) -> LoadFailed:
    fact = "was deleted or put into quarantine while it was being loaded"
    return LoadFailed(slot.name, fact, "ask for another version")


def _failed(slot: ResidentSlot, error: Exception) -> WardrobeError:
    if not isinstance(error, WardrobeError):
        return LoadFailed(slot.name, f"could not be loaded: {type(error).__name__}: {error}", "see the log")
    fact = error.fact if error.subject == slot.name else f"{error.subject}: {error.fact}"
    return LoadFailed(slot.name, f"could not be loaded: {fact}", error.remedy)


def _again(slot: ResidentSlot, failure: WardrobeError, seconds: float) -> LoadFailed:
    return LoadFailed(slot.name, failure.fact, f"it is tried again in {max(1, round(seconds))} s")
