"""What decides rollouts: look at all replicas' evidence, propose, move by compare-and-swap.

Every replica does it; the log lets one of them win each transition. Owns the local brake: this replica's
own share goes to stable at once when an alarm is raised here, when the canary cannot be loaded here, or
when the root cannot be read for `FREEZE_SECONDS`. It never raises a weight by itself. Invariant: what is
wrong with one adapter's rollout stops no other.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from registry.background import Background, PeriodicWork
from registry.errors import Conflict, StorageFailed
from registry.records import Heartbeat, RolloutEntry, Version
from registry.store import Registry
from registry.views.view import AdapterView, View
from registry.watcher import Watcher
from serve.rollout.decision import golden
from serve.rollout.decision.health import check_health
from serve.rollout.decision.machine import transition
from serve.rollout.decision.metrics import RolloutMetrics, trigger_of
from serve.rollout.decision.preflight import check_forbidden, check_preflight
from serve.rollout.decision.proposal import Situation, propose
from serve.rollout.decision.states import Event, EventType, RolloutState
from serve.rollout.policy import Policy, policy_of
from serve.rollout.recording.baselines import freeze_stable
from serve.rollout.recording.evidence import Baseline, ReplicaEvidence, baseline_of
from serve.rollout.recording.keeper import EvidenceWriter, read_evidence
from serve.rollout.recording.pooling import pool
from serve.rollout.statistics.judgement import Judgement

TICK_SECONDS = 0.5
FREEZE_SECONDS = 10.0
STABLE_ONLY_SECONDS = 60.0
"""Without news from the root: no decision after the first, only stable after the second."""

DEATHS_SECONDS = 86_400.0
"""Two deaths of an engine within this time, with a version in use at both, are no coincidence."""

ASK_AGAIN_SECONDS = 30.0
"""After golden prompts that could not be asked, or whose answers could not be kept."""

LOAD_ATTEMPTS = 2
"""Failed loads of a canary after which its rollout gives up, 5 s apart."""

_log = logging.getLogger("wardrobe.rollout")


class Notifier(Protocol):
    """Tells the world of a change; must not block."""

    def notify(self, before: RolloutEntry | None, after: RolloutEntry) -> None:
        """Take note of a transition that this replica made."""
        ...


@dataclass(frozen=True, slots=True)
class Local:
    """What the controller asks of its own replica.

    `failure` tells why a version cannot be loaded here ('' if it can) and how often that was tried;
    `inflight` names the versions that are in use or loading; `ask` sends a body to the server behind.
    """

    replica: str
    require_proof: bool
    alive: Callable[[], bool]
    failure: Callable[[str], tuple[str, int]]
    inflight: Callable[[], tuple[str, ...]]
    ask: golden.Ask


@dataclass(frozen=True, slots=True)
class _Look:
    """What one look at a rollout found, read and computed in a thread."""

    documents: list[ReplicaEvidence]
    replicas: list[Heartbeat]
    judgement: Judgement
    situation: Situation


@dataclass(slots=True, eq=False)
class Controller:
    """One replica's hand in all rollouts; `work` is what goes on, a `tick` twice a second."""

    registry: Registry
    watcher: Watcher
    keeper: EvidenceWriter
    local: Local
    background: Background = field(default_factory=Background)
    notifier: Notifier | None = None
    metrics: RolloutMetrics = field(default_factory=RolloutMetrics)
    clock: Callable[[], float] = time.time
    _seen: dict[str, RolloutEntry] = field(default_factory=dict)
    _braked_at: dict[str, int] = field(default_factory=dict)
    _asking: dict[str, float] = field(default_factory=dict)
    _waiting: dict[str, RolloutEntry] = field(default_factory=dict)
    work: PeriodicWork = field(init=False)
    _death: tuple[float, tuple[str, ...]] | None = None
    _death_recorded: bool = False
    _settled: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.work = self.background.work("rollouts", self.tick, TICK_SECONDS)

    async def tick(self) -> None:
        """Look at every open rollout once; a fault in one is noted and stops no other."""
        if not self.local.alive():
            await self.record_engine_death()
            return
        view = self.watcher.view
        await self._settle(view)
        await self._follow(view)
        silent = time.monotonic() - self.watcher.last_success
        rolling = [
            (adapter, adapter.rollout)
            for adapter in view.adapters.values()
            if adapter.rollout is not None and self.keeper.knows(adapter.rollout)
        ]
        for _, entry in rolling:
            self._brake(entry, silent)
        await self._apart(self.keeper.keep())
        if silent >= FREEZE_SECONDS:
            return
        for adapter, entry in rolling:
            await self._apart(self._decide(adapter, entry))
        await self._apart(self._measure_rollbacks())

    async def _apart(self, part: Coroutine[Any, Any, None]) -> None:
        try:
            await part
        except Exception as error:  # noqa: BLE001 - whatever it is, the others are looked at
            self.work.note(error)

    async def record_engine_death(self) -> None:
        """Record what was in use when this replica's engine died, and take canaries among it out."""
        if self._death_recorded or self.local.alive():
            return
        self._death = self._death or (self.clock(), self.local.inflight())
        at, names = self._death
        record = self.registry.record_engine_death
        with contextlib.suppress(StorageFailed):  # on a full disk the canary goes out all the same
            await asyncio.to_thread(record, self.local.replica, at, names)
        for adapter in self.watcher.view.adapters.values():
            entry = adapter.rollout
            if entry is None or not entry.weight or not self.keeper.knows(entry):
                continue
            if f"{adapter.name}@{entry.canary}" in names:
                sentence = f"the engine of {self.local.replica} died while the canary was in use"
                occasion = EventType.ROLL_BACK if entry.state == RolloutState.PROMOTED else EventType.SUSPECT
                await self._move(entry, Event(occasion, self._who, "suspect", sentence))
        await asyncio.to_thread(self._quarantine_repeaters, names)
        self._death_recorded = True

    def _quarantine_repeaters(self, names: tuple[str, ...]) -> None:
        """Quarantine what was in use at two deaths; never a version that is somebody's stable."""
        for name in names:
            adapter, _, number = name.partition("@")
            found = self.watcher.view.adapters.get(adapter)
            stable = found and (found.rollout.stable if found.rollout else found.aliases.get("stable"))
            deaths = self.registry.engine_deaths(name, since=self.clock() - DEATHS_SECONDS)
            if found is None or stable == int(number) or deaths < 2:
                continue
            reason = "was in use at two deaths of an engine"
            self.registry.quarantine(adapter, int(number), reason, who=self._who)

    @property
    def _who(self) -> str:
        return f"replica {self.local.replica}"

    async def _settle(self, view: View) -> None:
        """Complete, once after the start, what a writer that died had begun."""
        for name in view.adapters.keys() - self._settled:
            await self._apart(self._settle_one(name))

    async def _settle_one(self, adapter: str) -> None:
        await asyncio.to_thread(self.registry.settle_rollout, adapter)
        self._settled.add(adapter)

    async def _follow(self, view: View) -> None:
        opened = {one.rollout.rollout: one.rollout for one in view.adapters.values() if one.rollout}
        ended: dict[str, RolloutEntry] = {}
        for rollout, entry in list(self._seen.items()):
            if rollout not in opened:
                await self._apart(self._find_end(entry, ended))
        for rollout, entry in {**opened, **ended}.items():
            before = self._seen.get(rollout)
            if before is None or before.seq < entry.seq:
                self._notice(entry)
        self.keeper.follow(view, ended)
        for rollout in ended:
            self._seen.pop(rollout, None)
            self._braked_at.pop(rollout, None)
            self._asking.pop(rollout, None)

    async def _find_end(self, entry: RolloutEntry, ended: dict[str, RolloutEntry]) -> None:
        log = await asyncio.to_thread(self.registry.rollout_log, entry.adapter)
        ended |= {record.rollout: record for record in log if record.rollout == entry.rollout}

    def _notice(self, entry: RolloutEntry) -> None:
        self._seen[entry.rollout] = entry
        self.metrics.transition(entry)
        self.metrics.note(entry, [], None)
        if entry.state == RolloutState.ROLLED_BACK:
            self._waiting[entry.rollout] = entry

    def _brake(self, entry: RolloutEntry, silent_seconds: float) -> None:
        recorder = self.keeper.find(entry)
        failure, _ = self.local.failure(f"{entry.adapter}@{entry.canary}")
        # A promoted version is what `stable` means already.
        if silent_seconds >= STABLE_ONLY_SECONDS and entry.state != RolloutState.PROMOTED:
            recorder.brake(f"the root could not be read for {silent_seconds:.0f} s")
        elif failure:
            recorder.brake(failure)
        elif self._braked_at.get(entry.rollout, 0) < recorder.entry.seq:
            recorder.brake("")

    async def _decide(self, adapter: AdapterView, entry: RolloutEntry) -> None:
        policy = policy_of(entry)
        look = await asyncio.to_thread(self._look, adapter, entry, policy)
        self.metrics.note(entry, look.documents, look.judgement)
        if entry.state == RolloutState.PRELOADING:
            self._start_golden(adapter, entry)
        event = propose(entry, policy, look.situation, self._who, self.clock())
        if event is None:
            return
        if event.occasion in {EventType.ROLL_BACK, EventType.SUSPECT}:
            self._braked_at[entry.rollout] = entry.seq
            self.keeper.find(entry).brake(event.sentence)
        await self._move(entry, event)

    async def _move(self, entry: RolloutEntry, event: Event) -> None:
        """Append what `event` makes of `entry`, unless somebody else moved the rollout meanwhile."""
        policy = policy_of(entry)

        def decide(last: RolloutEntry | None) -> RolloutEntry | None:
            if last is None or (last.rollout, last.seq) != (entry.rollout, entry.seq):
                return None
            return transition(last, event, policy, self.clock())

        urgent = event.occasion in {EventType.ROLL_BACK, EventType.SUSPECT}
        append = partial(self.registry.append_rollout, entry.adapter, decide, urgent=urgent)
        try:
            made = await asyncio.to_thread(append)
        except Conflict as error:
            self.work.note(error)
            return
        if made is not None:
            _log.info(
                "%s: %s -> %s (%s) %s", entry.adapter, entry.state, made.state, made.reason, made.sentence
            )
            if self.notifier is not None:
                self.notifier.notify(entry, made)
        await asyncio.to_thread(self.watcher.refresh)
        self.keeper.follow(self.watcher.view, {} if made is None or made.open else {made.rollout: made})

    def _look(self, adapter: AdapterView, entry: RolloutEntry, policy: Policy) -> _Look:
        from serve.rollout.statistics.judge import judge

        mine = self.keeper.document(entry.rollout)
        known = read_evidence(self.registry, entry.rollout, self.work.note)
        found = [one for one in known if one.replica != self.local.replica]
        documents = [*found, *([mine] if mine is not None else [])]
        replicas = [beat for beat, live in self.registry.replicas() if live]
        evidence = pool(documents, step=entry.step)
        baseline = baseline_of(entry)
        judgement = judge(policy, evidence, baseline)
        failure, attempts = self.local.failure(f"{entry.adapter}@{entry.canary}")
        situation = Situation(
            judgement=judgement,
            evidence=evidence,
            preflight=check_preflight(
                entry,
                adapter,
                replicas,
                require_proof=self.local.require_proof,
                golden=self._golden(entry) if entry.state == RolloutState.PRELOADING else None,
                failure=failure if attempts >= LOAD_ATTEMPTS else "",
            ),
            health=check_health(documents, baseline, policy.health, policy.evidence),
            fresh=_is_fresh(entry, documents, replicas),
            forbidden=check_forbidden(entry, adapter),
            new_baseline=self._new_baseline(entry, documents),
        )
        return _Look(documents, replicas, judgement, situation)

    def _new_baseline(self, entry: RolloutEntry, documents: list[ReplicaEvidence]) -> Baseline | None:
        """Return thresholds from stable's first requests, for a rollout that began without a baseline."""
        if entry.state == RolloutState.PRELOADING or entry.baseline.get("first_token"):
            return None
        found = freeze_stable(documents)
        return found if found.first_token else None

    def _golden(self, entry: RolloutEntry) -> dict[str, bool] | None:
        if self.registry.golden(entry.adapter) is None:
            return None
        found = self.registry.attestations(entry.adapter, entry.canary, golden.KIND)
        return golden.answered(found[-1].body) if found else {}

    def _start_golden(self, adapter: AdapterView, entry: RolloutEntry) -> None:
        version = adapter.versions.get(entry.canary)
        if version is None or self._asking.get(entry.rollout, 0.0) > self.clock():
            return
        self._asking[entry.rollout] = math.inf
        self.background.once("golden", partial(self._ask_golden, entry.rollout, version))

    async def _ask_golden(self, rollout: str, version: Version) -> None:
        try:
            await self._ask_golden_once(rollout, version)
        except BaseException:
            self._asking[rollout] = self.clock() + ASK_AGAIN_SECONDS
            raise

    async def _ask_golden_once(self, rollout: str, version: Version) -> None:
        """Ask the golden prompts once the version is loaded here, unless somebody has done it."""
        lines = await asyncio.to_thread(self.registry.golden, version.adapter)
        known = await asyncio.to_thread(
            self.registry.attestations, version.adapter, version.number, golden.KIND
        )
        if lines is None or known:
            return
        mine = [beat for beat, _ in await asyncio.to_thread(self.registry.replicas)]
        if not any(beat.replica == self.local.replica and version.name in beat.resident for beat in mine):
            self._asking[rollout] = 0.0  # not loaded yet: the next look tries again
            return
        answers = await golden.ask_golden(self.local.ask, version.name, lines)
        body = golden.attestation(answers)
        await asyncio.to_thread(
            self.registry.attest, version.adapter, version.number, golden.KIND, body, who=self._who
        )

    async def _measure_rollbacks(self) -> None:
        """Measure how long a rollback took to reach every live replica; the first by name measures."""
        for rollout, entry in list(self._waiting.items()):
            beats = await asyncio.to_thread(self.registry.replicas)
            replicas = [beat for beat, live in beats if live and beat.state != "starting"]
            documents = await asyncio.to_thread(read_evidence, self.registry, rollout, self.work.note)
            acting = {document.replica for document in documents if document.seq >= entry.seq}
            waited = self.clock() - entry.at
            if {beat.replica for beat in replicas} <= acting or waited > STABLE_ONLY_SECONDS:
                del self._waiting[rollout]
                if replicas and min(beat.replica for beat in replicas) == self.local.replica:
                    self.metrics.rolled_back(trigger_of(entry), waited)


def _is_fresh(entry: RolloutEntry, documents: list[ReplicaEvidence], replicas: list[Heartbeat]) -> bool:
    acting = {document.replica for document in documents if document.seq >= entry.seq}
    return all(beat.replica in acting for beat in replicas if beat.state == "ready") and bool(replicas)
