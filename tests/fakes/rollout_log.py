"""Entries of a rollout's log by hand, for tests of the store: no policy, no machine."""

from __future__ import annotations

from dataclasses import replace

from registry.names import STABLE
from registry.records import RolloutEntry
from registry.store import Registry

ROLLOUT = "00112233445566aa"


def first_entry(
    registry: Registry, canary: int, *, stable: int | None = None, rollout: str = ROLLOUT, seq: int = 1
) -> RolloutEntry:
    """Return the entry that begins a rollout of `support`, against its `stable` or the base model."""
    control = registry.aliases("support").get(STABLE, 0) if stable is None else stable
    digests = {version.number: version.digest for version in registry.versions("support")}
    return RolloutEntry(
        adapter="support",
        rollout=rollout,
        seq=seq,
        state="preloading",
        event="start",
        who="anna",
        at=1_000.0,
        began=1_000.0,
        state_since=1_000.0,
        step_since=1_000.0,
        stable=control,
        canary=canary,
        stable_digest=digests.get(control, ""),
        canary_digest=digests.get(canary, "sha256:0"),
        weight=0,
        base_weight=0,
        shadow=0,
        held_weight=0,
        step=-1,
        resumes="",
        reason="start",
        sentence="begins",
        forced=False,
        policy={"name": "custom"},
        baseline={},
        facts={},
    )


def start(registry: Registry, canary: int, *, stable: int | None = None, rollout: str = ROLLOUT) -> None:
    """Open a rollout of `support`, unless this one is open already."""

    def decide(last: RolloutEntry | None) -> RolloutEntry | None:
        if last is not None and last.rollout == rollout:
            return None
        seq = last.seq + 1 if last else 1
        return first_entry(registry, canary, stable=stable, rollout=rollout, seq=seq)

    registry.append_rollout("support", decide)


def go(registry: Registry, state: str, weight: int = 0, *, at: float = 2_000.0) -> RolloutEntry | None:
    """Move the open rollout of `support` to `state`, unless it is there already with this weight."""

    def decide(last: RolloutEntry | None) -> RolloutEntry | None:
        assert last is not None
        if (last.state, last.weight) == (state, weight):
            return None
        step = max(last.step, 0) if weight else last.step
        return replace(
            last, seq=last.seq + 1, state=state, event=state, weight=weight, step=step, at=at, reason=state
        )

    return registry.append_rollout("support", decide)
