"""Rollouts on a real root, driven by hand: the events that replicas would propose, and their evidence."""

from __future__ import annotations

import time
from pathlib import Path

from registry.records import RolloutEntry
from registry.store import Registry
from serve.rollout.decision.machine import transition
from serve.rollout.decision.states import Event, EventType
from serve.rollout.policy import Policy
from serve.rollout.recording.evidence import ArmTally, Exceedances, Rating, ReplicaEvidence, Segment
from tests.fakes.rollouts import units
from tests.fakes.store import beat, make_registry, put


def make_root(folder: Path, versions: int = 3) -> Registry:
    """Make a root with `support` (the first version is stable) and `raw@1`, which has no stable."""
    registry = make_registry(folder)
    for seed in range(1, versions + 1):
        put(registry, "support", seed)
    put(registry, "raw", 9, no_stable=True)
    return registry


def drive(registry: Registry, *occasions: EventType, adapter: str = "support", at: float = 0) -> RolloutEntry:
    """Let a replica propose `occasions` one after the other; return the last entry."""
    entry: RolloutEntry | None = None
    for occasion in occasions:

        def decide(last: RolloutEntry | None, occasion: EventType = occasion) -> RolloutEntry:
            assert last is not None
            event = Event(occasion, "replica r1", occasion.value, f"because of {occasion}", {"units": 7})
            return transition(last, event, Policy.model_validate(last.policy), at or time.time())

        entry = registry.append_rollout(adapter, decide)
    assert entry is not None
    return entry


def seen(
    registry: Registry,
    *,
    stable: ArmTally | None = None,
    canary: ArmTally | None = None,
    replica: str = "r1",
    adapter: str = "support",
    age_seconds: float = 0.0,
) -> None:
    """Write a replica's evidence of the present step, and its heartbeat."""
    entry = registry.rollout(adapter)
    assert entry is not None
    now = time.time()
    segment = Segment(
        seq=entry.seq,
        step=entry.step,
        weight=entry.weight,
        began=now,
        ended=now,
        arms={"stable": stable or ArmTally(), "canary": canary or ArmTally()},
    )
    document = ReplicaEvidence(
        rollout=entry.rollout,
        adapter=adapter,
        replica=replica,
        at=now - age_seconds,
        seq=entry.seq,
        segments=[segment],
    )
    registry.put_evidence(entry.rollout, replica, document.model_dump_json().encode())
    registry.beat(beat(replica, f"{adapter}@{entry.stable}", f"{adapter}@{entry.canary}"))


def arm(
    count: int, *, failed: int = 0, begin: int = 0, place: int = 30, score: float | None = None
) -> ArmTally:
    """Return what an arm did with `count` units of one request; `place` is the bucket of its times."""
    ids = units(count, begin)
    times = Exceedances(count=count)
    times.histogram[place] = count
    return ArmTally(
        requests=count,
        units=count,
        sketch=sorted(ids),
        outcomes={"ok": count - failed, "engine_error": failed},
        finish={"stop": count - failed},
        output_tokens=10 * (count - failed),
        failed=ids[:failed],
        judged=count,
        first_token=times,
        per_token=times.model_copy(deep=True),
        ratings=[]
        if score is None
        else [Rating(at=float(n), unit=unit, score=score) for n, unit in enumerate(ids)],
    )
