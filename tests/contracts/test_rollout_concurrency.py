"""Many processes that move one rollout at once: each seq once, each transition once, `stable` moved once."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from registry.errors import Conflict
from registry.names import STABLE
from registry.records import RolloutEntry
from registry.store import Registry
from serve.rollout.decision.machine import IllegalMove, transition
from serve.rollout.decision.states import Event, EventType
from serve.rollout.policy import Policy, RampStep
from tests.contracts.crashing import together
from tests.contracts.test_rollout_crashes import IDS, open_rollout, versions
from tests.fakes.rollout_log import first_entry
from tests.fakes.store import make_registry, without_links

PROCESSES = 8
STEPS = 20
POLICY = Policy(
    steps=tuple(RampStep(weight=100 * n, min_units=1, min_seconds=1) for n in range(1, STEPS + 1)),
    cooldown_seconds=0,
)


def _due(last: RolloutEntry) -> EventType | None:
    """Return what every process proposes: the next step, then the promotion, then the end."""
    if last.state == "preloading":
        return EventType.LOADED
    if last.state == "promoted":
        return EventType.COOLED
    if last.state != "ramping":
        return None
    return EventType.ADVANCE if last.step < STEPS - 1 else EventType.PROMOTE


def _run(registry: Registry, who: str) -> list[int]:
    """Propose what is due until the rollout has ended; return the entries that this process made."""
    made: list[int] = []

    def decide(last: RolloutEntry | None) -> RolloutEntry | None:
        assert last is not None
        occasion = _due(last)
        return transition(last, Event(occasion, who), POLICY, time.time()) if occasion else None

    while (entry := registry.append_rollout("support", decide)) is not None:
        made.append(entry.seq)
    return made


@pytest.mark.parametrize("links", [True, False], ids=["links", "no-links"])
def test_eight_processes_make_each_transition_exactly_once(links: bool, tmp_path: Path) -> None:
    registry = make_registry(tmp_path)
    versions(registry)
    open_rollout(registry)
    with without_links(not links):
        made = together(PROCESSES, lambda n: _run(Registry.open(registry.root), f"replica {n}"), tmp_path)
    log = registry.rollout_log("support")
    assert [entry.seq for entry in log] == list(range(1, STEPS + 4))
    assert [entry.event for entry in log] == [
        "start",
        "loaded",
        *["advance"] * (STEPS - 1),
        "promote",
        "cooled",
    ]
    assert [entry.weight for entry in log[1:-2]] == [100 * n for n in range(1, STEPS + 1)]
    claimed = {seq: n for n, seqs in enumerate(made) for seq in seqs}  # type: ignore[attr-defined]
    assert {entry.seq: entry.who for entry in log[1:]} == {s: f"replica {n}" for s, n in claimed.items()}
    assert sum(len(seqs) for seqs in made) == len(log) - 1  # type: ignore[arg-type,misc]
    moves = registry.catalogue.aliases.log("support", STABLE)
    assert [(m.version, m.why) for m in moves[1:]] == [(2, f"rollout {IDS[2]}#{len(log) - 1}")]


def test_one_abort_wins_over_everybody_who_goes_on(tmp_path: Path) -> None:
    registry = make_registry(tmp_path)
    versions(registry)
    open_rollout(registry)

    def act(number: int) -> bool:
        own = Registry.open(registry.root)
        if number:
            _run(own, f"replica {number}")
            return False

        def abort(last: RolloutEntry | None) -> RolloutEntry:
            assert last is not None
            return transition(last, Event(EventType.ABORT, "anna"), POLICY, time.time())

        while (own.rollout("support") or abort(None)).seq < 4:
            time.sleep(0.0005)
        try:
            own.append_rollout("support", abort)
        except IllegalMove:
            return False  # it had been closed
        return True

    aborted = together(PROCESSES, act, tmp_path)[0]
    log = registry.rollout_log("support")
    assert [entry.seq for entry in log] == list(range(1, len(log) + 1))
    assert log[-1].state == ("rolled_back" if aborted else "closed")
    assert registry.aliases("support") == {"stable": 1 if aborted else 2}
    assert registry.settle_rollout("support") is None


def test_eight_starts_at_once_open_one_rollout(tmp_path: Path) -> None:
    registry = make_registry(tmp_path)
    versions(registry)
    rounds = 5

    def act(number: int) -> list[int]:
        own = Registry.open(registry.root)
        return [turn for turn in range(rounds) if _start(own, f"{turn:08x}{number:08x}")]

    made = together(PROCESSES, act, tmp_path)
    log = registry.rollout_log("support")
    starts = [entry for entry in log if entry.event == "start"]
    assert sum(len(turns) for turns in made) == len(starts) >= 1  # type: ignore[arg-type,misc]
    opened: str | None = None
    for entry in log:
        assert (opened is None) == (entry.event == "start")
        opened = entry.rollout if entry.open else None


def _start(registry: Registry, rollout: str) -> bool:
    """Open a rollout where none is open and abort it; False where somebody else's is open."""

    def decide(last: RolloutEntry | None) -> RolloutEntry:
        seq = last.seq + 1 if last else 1
        return first_entry(registry, 2, rollout=rollout, seq=seq)

    def end(last: RolloutEntry | None) -> RolloutEntry:
        assert last is not None
        assert last.rollout == rollout
        return replace(last, seq=last.seq + 1, state="rolled_back", event="abort")

    try:
        registry.append_rollout("support", decide)
    except Conflict:
        return False
    registry.append_rollout("support", end)
    return True
