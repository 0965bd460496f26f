"""Everything that one router process holds: built once at start-up (`building.py`), read by every request.

Owns the lifetime of the watcher and the residency, and the loop that follows the registry; the other loops
are `serve.router.upkeep`'s. It is also the control API's `serve.control.state.ControlState`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from prometheus_client import REGISTRY, CollectorRegistry

from registry.background import Background
from registry.entries.keyring import KeyRing
from registry.errors import WardrobeError
from registry.records import Heartbeat
from registry.store import Registry
from registry.views.view import View
from registry.watcher import Watcher
from serve.console.traffic import Traffic
from serve.engine.interface import Engine
from serve.errors import Busy, EngineDead
from serve.groups.admission import Admission
from serve.groups.counting import PromptCounter
from serve.rollout.decision.controller import Controller, Local
from serve.rollout.decision.golden import Ask
from serve.rollout.recording.keeper import EvidenceWriter
from serve.rollout.webhooks import WebhookNotifier
from serve.router.access import AccessRules
from serve.router.endpoints.feedback import FeedbackDesk
from serve.router.endpoints.response_id import IdIssuer
from serve.router.residents.pinned import is_gone, is_known, is_protected, to_preload, to_stay
from serve.router.residents.proof import Prover
from serve.router.residents.residency import Residency
from serve.router.residents.slot import ResidentSlot
from serve.router.residents.succession import Succession
from serve.router.targets import Targets
from serve.router.telemetry import metrics as counters
from serve.router.telemetry.vitals import AccessState, EnginePulse, Vitals
from serve.router.upkeep import SERVER, Upkeep
from serve.settings import RequestLimits, ServeSettings
from serve.watchdog.watch import EngineWatch

LOADS_AT_ONCE = 4
"""How many versions are loaded beside each other for nobody in particular: the engine takes them one by one,
and a request that needs one waits for those before it."""

DYING_SECONDS = 1.5
"""What was in use this long before an engine's death was noticed counts as in use at it."""

_log = logging.getLogger("wardrobe.router")


@dataclass(slots=True, eq=False)
class Runtime:
    """One router process at work; `building.build_runtime` makes it, `start` and `stop` bound its life."""

    settings: ServeSettings
    registry: Registry
    engine: Engine
    watcher: Watcher
    keys: KeyRing
    ids: IdIssuer
    metrics: counters.RouterMetrics
    residency: Residency
    targets: Targets
    keeper: EvidenceWriter
    feedback: FeedbackDesk
    watch: EngineWatch
    background: Background
    prover: Prover
    succession: Succession
    access: AccessRules = field(init=False)
    upkeep: Upkeep = field(init=False)
    admission: Admission = field(init=False)
    ask: Ask | None = None
    draining: bool = False
    preloaded: bool = False
    began: float = field(default_factory=time.time)
    traffic: Traffic = field(default_factory=Traffic)
    on_drain: list[Callable[[], None]] = field(default_factory=list)
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)
    _unregister: Callable[[], None] = lambda: None
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _seen: View | None = None
    _wanted: list[ResidentSlot] = field(default_factory=list)
    _pinned: set[str] | None = None
    _controller: Controller | None = None
    notifier: WebhookNotifier = field(default_factory=WebhookNotifier)

    def __post_init__(self) -> None:
        chosen = self.settings.vllm.get("scheduling_policy") == "priority"
        salt = partial(self.ids.derive, b"cache_salt")
        self.access = AccessRules(self.keys, self.targets, salt, prioritises=chosen)
        self.upkeep = Upkeep(
            self.registry,
            self.background,
            self.keys,
            self.ids,
            self.feedback,
            self.prover,
            self._describe,
            self.replica,
        )
        counter = PromptCounter(self.engine.base_name, self._ask)
        self.admission = Admission(
            self.replica,
            self.engine.context_tokens,
            counter,
            self.keys.caller,
            longest_answer=self.limits.max_tokens,
        )

    @property
    def limits(self) -> RequestLimits:
        """Return the limits on one request."""
        return self.settings.limits

    @property
    def replica(self) -> str:
        """Return this replica's name."""
        return self.settings.replica_name

    @property
    def capacity(self) -> int:
        """Return how many versions the engine can hold."""
        return self.engine.capacity

    def resident(self) -> tuple[str, ...]:
        """Return the names that are loaded and proved."""
        return self.residency.resident()

    def drain(self, on: bool) -> None:
        """Refuse new requests, or take them again; what is in flight goes on."""
        self.draining = on
        if on:
            self._end_side_work()

    def _end_side_work(self) -> None:
        for end in self.on_drain:
            end()

    def ready(self) -> bool:
        """Return True when the pinned set has been loaded and new requests are taken."""
        return self.preloaded and not self.draining and self.engine.alive() and not self.upkeep.refusals()

    def refusals(self) -> list[str]:
        """Return why no request may be taken now, in sentences; none as a rule."""
        verdict = self.watch.verdict
        hung = [] if verdict is None else [f"the engine hangs: {verdict.reason}"]
        return [*hung, *self.upkeep.refusals()]

    def problems(self) -> list[str]:
        """Return what is not as it should be while this replica serves, in sentences."""
        named = sorted(self.watcher.problems.items())
        unread = (f"{'' if '/' in name else 'adapter '}{name}: {text}" for name, text in named if name)
        moves = (move.sentence for move in self.succession.pending(self.watcher.view) if move.failure)
        return [*self.upkeep.problems(), *unread, *moves, *self.succession.silent()]

    def check_open(self) -> None:
        """Pass when new requests are taken.

        Raises: Busy: draining. EngineDead.
        """
        if self.draining:
            raise Busy(self.replica, "is draining", "send it to another replica", rejection="draining")
        if not self.engine.alive():
            raise self.why_dead()

    def why_dead(self) -> EngineDead:
        """Return the error of a request while the engine is dead."""
        fact = f"hangs: {self.watch.verdict.reason}" if self.watch.verdict else "has died"
        return EngineDead("engine", fact, "it is being restarted: try again")

    async def start(self, registry: CollectorRegistry = REGISTRY) -> None:
        """Watch the root, load and prove what is pinned, and begin to beat and to follow."""
        loop = asyncio.get_running_loop()
        self.metrics.residency = self._residency
        self.metrics.draining = lambda: self.draining
        controller = self._controller = self._build_controller()
        self._unregister = counters.register((self.metrics, controller.metrics, self._vitals()), registry)
        self.watcher.subscribe(lambda _: self._notice(loop))
        self.watcher.start()
        await self.upkeep.announce()
        self._tasks += self.upkeep.begin()
        self.residency.settled = self._changed.set
        self.residency.gone = lambda one: is_gone(self.watcher.view, one)
        await self.prover.get_ready()
        if self.settings.residency.preload_stable:
            await self._preload()
        self.preloaded = True
        # Loads take their time; a registry that is not followed is noticed by the watcher's own work.
        patience = 10 * self.settings.residency.load_timeout_seconds
        works = [self.background.work("view", self._follow, 0.0, patience), controller.work]
        if self.watch.hang_seconds:
            works.append(self.background.work("engine", self.watch.look, self.watch.look_seconds))
        self._tasks += map(self.background.loop, works)
        await self.upkeep.announce()

    async def stop(self) -> None:
        """End the loops and take this replica's heartbeat away; calling it twice changes nothing."""
        self.draining = True
        self._end_side_work()
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.watch.stop()
        if tasks:
            await self._close_rollouts()
            self._unregister()
            await asyncio.to_thread(self.watcher.stop)
            with contextlib.suppress(WardrobeError):  # it looks dead in ten seconds anyway
                await asyncio.to_thread(self.registry.remove_replica, self.replica)

    async def _close_rollouts(self) -> None:
        """Write what the last requests showed, and what an engine that died had in use."""
        try:
            if self._controller is not None:
                await self._controller.record_engine_death()
            await self.keeper.keep()
            await self.upkeep.write_last()
        except WardrobeError as error:
            _log.warning("the rollouts' last evidence was not written: %s", error)
        await asyncio.to_thread(self.notifier.close)

    def _build_controller(self) -> Controller:
        local = Local(
            replica=self.replica,
            require_proof=self.settings.residency.require_proof,
            alive=self.engine.alive,
            failure=self.residency.failure,
            inflight=self._in_use_at_death,
            ask=self._ask,
        )
        return Controller(self.registry, self.watcher, self.keeper, local, self.background, self.notifier)

    def _in_use_at_death(self) -> tuple[str, ...]:
        if self.watch.verdict is not None:
            return self.watch.suspects
        return self.residency.at_work(time.monotonic() - DYING_SECONDS)

    async def _ask(self, path: str, body: bytes) -> tuple[int, bytes]:
        assert self.ask is not None, "set by the router before the start"
        return await self.ask(path, body)

    async def _preload(self) -> None:
        gate = asyncio.Semaphore(LOADS_AT_ONCE)

        async def bring_in(slot: ResidentSlot) -> None:
            async with gate:
                with contextlib.suppress(WardrobeError):  # logged; the others must not suffer for it
                    await self.residency.load(slot)

        view = self.watcher.view
        self._apply(view)
        wanted = to_preload(view, self.engine.capacity)
        await asyncio.gather(*(bring_in(self.residency.slot(one)) for one in wanted))

    def _notice(self, loop: asyncio.AbstractEventLoop) -> None:
        """Wake the loop that follows the view; called from the watcher's thread or any other."""
        loop.call_soon_threadsafe(self._changed.set)

    async def _follow(self) -> None:
        # The timeout is for what no change announces: idle at last, or due for another try.
        # NOTE: not `wait_for`: it swallows a cancellation that comes with the event (python#86296), and
        # `stop` would wait for ever. Remove when Python 3.12 is the oldest.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.settings.residency.poll_seconds):
                await self._changed.wait()
        self._changed.clear()
        await self._reconcile(self.watcher.view)

    async def _reconcile(self, view: View) -> None:
        wanted = self._apply(view)
        try:
            await self.residency.retire(lambda one: is_gone(view, one))
        except ExceptionGroup as error:  # what the engine will not let go must not stop what is to come
            self.background.works["view"].note(error)
        due = [slot for slot in wanted if slot.due(self.residency.clock())]
        for slot in due[: max(0, LOADS_AT_ONCE - self.residency.loading)]:
            self.residency.begin(slot)

    def _apply(self, view: View) -> list[ResidentSlot]:
        """Pin what is to stay, and return the pinned versions that were never loaded here."""
        if view is not self._seen:
            self._seen = view
            self._wanted = [self.residency.slot(one) for one in to_stay(view, self.engine.capacity)]
            self._pinned = None
            self.succession.observe(view)
            self.metrics.protect(partial(is_protected, view))
            base = self.engine.base_name
            self.metrics.forget(lambda one, number: one == base or is_known(view, one, number))
        self.succession.settle(view)
        stay = {*(slot.name for slot in self._wanted), *(one.name for one in self.succession.kept(view))}
        if stay != self._pinned:
            self._pinned = stay
            self.residency.pin(stay)
        return [slot for slot in self._wanted if not slot.ready and not slot.evicted]

    def _describe(self) -> Heartbeat:
        state = "draining" if self.draining else "ready" if self.preloaded else "starting"
        return Heartbeat(
            replica=self.replica,
            url=f"http://{self.settings.host}:{self.settings.port}",
            base_fingerprint=self.registry.base.fingerprint,
            resident=self.resident(),
            capacity=self.capacity,
            state=state,
            started=self.began,
            pid=os.getpid(),
            server=SERVER,
            problems=tuple(self.problems()),
        )

    def _vitals(self) -> Vitals:
        return Vitals(
            self.replica,
            self.watcher,
            self.engine.alive,
            self.ready,
            self.residency.drift,
            lambda: AccessState(self.keys.enabled, len(self.feedback.log), self.keys.age()),
            lambda: EnginePulse(self.watch.verdict is not None, self.watch.age),
            self.background,
            lambda: len(self.problems()),
        )

    def _residency(self) -> counters.ResidencyFacts:
        engine, waiting = self.engine, self.residency.waiting()
        return counters.ResidencyFacts(self.resident(), engine.capacity, engine.slots, *waiting)
