"""The crash contract of rollouts: killed between any two writes, nothing is lost, half done or done twice.

As in `test_registry_crashes`, each scenario runs once to learn its steps and what others could see before
each; then a process is killed before every one of them. Whoever opens the root afterwards sees one of
these states; a transition is seen at once, though its alias move is a second write; doing the same again
ends where a run without a crash ends, with not one entry or move more.
"""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from registry.errors import NotFound, StorageFailed
from registry.names import STABLE, parse_model
from registry.records import RolloutEntry
from registry.storage import files
from registry.store import Registry
from serve.rollout.decision.machine import begin, transition
from serve.rollout.decision.states import Event, EventType
from serve.rollout.policy import Policy, RampStep
from serve.rollout.recording.evidence import Baseline
from tests.contracts.crashing import break_links, kill_at
from tests.fakes.store import leftovers, make_registry, put

DAY = 86_400.0
POLICY = Policy(steps=tuple(RampStep(weight=w, min_units=1, min_seconds=1) for w in (500, 2_500)))
IDS = {2: "2222222222222222", 3: "3333333333333333"}
Change = Callable[[Registry], object]


@dataclass(frozen=True)
class Scenario:
    """What is there before, what is done (again it does nothing), and how many states others see."""

    prepare: Change
    act: Change
    visible: int
    least_steps: int = 6


@dataclass(frozen=True)
class Seen:
    """What a reader is told: by the names of a request, and by the log."""

    names: dict[str, int]
    aliases: dict[str, int]
    rollout: tuple[int, str, int, int] | None
    evidence: dict[str, bytes]


def see(registry: Registry) -> Seen:
    names = {}
    for name in ("support", "support@stable", "support@canary"):
        try:
            names[name] = registry.resolve(parse_model(name)).number
        except NotFound:
            continue
    last = registry.rollout("support")
    state = (last.canary, last.state, last.weight, last.step) if last else None
    return Seen(names, registry.aliases("support"), state, registry.evidence(IDS[2]))


def logs(registry: Registry) -> tuple[object, object]:
    """Return both logs without times: what must not hold an entry too many."""
    entries = [(e.seq, e.rollout, e.event, e.state, e.weight) for e in registry.rollout_log("support")]
    moves = [(m.seq, m.version, m.why, m.restores) for m in registry.catalogue.aliases.log("support", STABLE)]
    return entries, moves


def open_rollout(registry: Registry, canary: int = 2, *, against_base: bool = False) -> None:
    """Begin a rollout, after superseding another that is open."""

    def decide(last: RolloutEntry | None) -> RolloutEntry | None:
        if last is not None and last.rollout == IDS[canary]:
            return None
        if last is not None and last.open:
            return transition(last, Event(EventType.SUPERSEDE, "anna"), POLICY, time.time())
        return begin(
            "support",
            registry.version("support", canary),
            None if against_base else registry.resolve(parse_model("support")),
            POLICY,
            who="anna",
            now=time.time(),
            seq=last.seq + 1 if last else 1,
            rollout_id=IDS[canary],
            baseline=Baseline(),
        )

    while registry.append_rollout("support", decide):
        pass


def happen(*occasions: str) -> Change:
    """Let each occasion happen to the rollout of version 2, unless it has."""

    def act(registry: Registry) -> None:
        for name in occasions:
            registry.append_rollout("support", lambda last, name=name: _after(registry, last, name))  # type: ignore[misc]

    return act


def _after(registry: Registry, last: RolloutEntry | None, occasion: str) -> RolloutEntry | None:
    assert last is not None
    if any(entry.event == occasion for entry in registry.rollout_log("support")):
        return None
    return transition(last, Event(EventType(occasion), "bert", "", occasion), POLICY, time.time())


def versions(registry: Registry) -> None:
    for seed in (1, 2, 3):
        put(registry, seed=seed)


def without_stable(registry: Registry) -> None:
    for seed in (1, 2, 3):
        put(registry, seed=seed, no_stable=True)


def opened(*occasions: str) -> Change:
    def prepare(registry: Registry) -> None:
        versions(registry)
        open_rollout(registry)
        happen(*occasions)(registry)

    return prepare


def against_base(*occasions: str) -> Change:
    def prepare(registry: Registry) -> None:
        without_stable(registry)
        open_rollout(registry, against_base=True)
        happen(*occasions)(registry)

    return prepare


def unsettled(*occasions: str) -> Change:
    """Leave the last occasion's entry without the move of `stable` that follows it."""

    def prepare(registry: Registry) -> None:
        opened(*occasions[:-1])(registry)
        registry.catalogue.rollouts.append("support", lambda last: _after(registry, last, occasions[-1]))

    return prepare


def _settle(registry: Registry) -> None:
    registry.settle_rollout("support")


def _evidence(registry: Registry) -> None:
    registry.put_evidence(IDS[2], "one", b'{"new": 1}')


def _old_evidence(registry: Registry) -> None:
    opened()(registry)
    registry.put_evidence(IDS[2], "one", b'{"old": 1}')


SCENARIOS = {
    "start": Scenario(versions, open_rollout, 2),
    "start against the base": Scenario(without_stable, lambda r: open_rollout(r, against_base=True), 2),
    "supersede and start": Scenario(opened("loaded"), lambda r: open_rollout(r, 3), 3, 10),
    "load": Scenario(opened(), happen("loaded"), 2),
    "advance": Scenario(opened("loaded"), happen("advance"), 2),
    "suspect": Scenario(opened("loaded"), happen("suspect"), 2),
    "abort": Scenario(opened("loaded"), happen("abort"), 2),
    "promote": Scenario(opened("loaded"), happen("promote"), 2, 10),
    "promote against the base": Scenario(against_base("loaded"), happen("promote"), 2, 10),
    "take back": Scenario(opened("loaded", "promote"), happen("guard"), 2, 10),
    "take back against the base": Scenario(against_base("loaded", "promote"), happen("guard"), 2, 10),
    "close": Scenario(opened("loaded", "promote"), happen("cooled"), 2),
    "close what nobody settled": Scenario(unsettled("loaded", "promote"), happen("cooled"), 2, 10),
    "settle a promotion": Scenario(unsettled("loaded", "promote"), _settle, 1),
    "settle its undoing": Scenario(unsettled("loaded", "promote", "guard"), _settle, 1),
    "start over what nobody settled": Scenario(
        unsettled("loaded", "promote", "guard"), lambda r: open_rollout(r, 3), 2, 10
    ),
    "collect": Scenario(unsettled("loaded", "promote"), lambda r: r.gc(apply=True), 1),
    "evidence": Scenario(_old_evidence, _evidence, 2, 2),
}


@pytest.mark.parametrize("links", [True, False], ids=["links", "no-links"])
@pytest.mark.parametrize("name", SCENARIOS)
def test_a_kill_between_any_two_steps_loses_and_doubles_nothing(
    name: str, links: bool, tmp_path: Path
) -> None:
    scenario = SCENARIOS[name]
    template = tmp_path / "template"
    scenario.prepare(make_registry(template))
    steps, states, final = _observe(scenario, _copy(template, tmp_path / "whole"), links)
    assert len(steps) >= scenario.least_steps
    for index, label in enumerate(steps):
        world = _copy(template, tmp_path / "killed")
        kill_at(index, partial(scenario.act, Registry.open(world / "root")), links=links)
        registry = Registry.open(world / "root")
        assert see(registry) in states, f"killed before: {label}"
        assert registry.adapter_view("support").aliases == registry.aliases("support"), label
        scenario.act(registry)
        assert logs(registry) == final, f"killed before: {label}"
        assert see(registry) == states[-1], f"killed before: {label}"
        registry.gc(apply=True, now=time.time() + 2 * DAY)
        assert list(leftovers(registry.root)) == [], label
        assert logs(registry) == final, label
        shutil.rmtree(world)


def _observe(
    scenario: Scenario, world: Path, links: bool
) -> tuple[list[str], list[Seen], tuple[object, object]]:
    """Run without a crash: the steps, the distinct states that others saw, and the logs at the end."""
    steps: list[str] = []
    states: list[Seen] = []
    own, other = Registry.open(world / "root"), Registry.open(world / "root")

    def note(label: str) -> None:
        steps.append(label)
        states.append(see(other))
        break_links(label, links)

    with files.watch_steps(note):
        scenario.act(own)
    states.append(see(other))
    distinct = [state for n, state in enumerate(states) if n == 0 or state != states[n - 1]]
    assert len(distinct) == scenario.visible
    assert all(state not in distinct[:n] for n, state in enumerate(distinct)), "a state came back"
    return steps, distinct, logs(other)


@pytest.mark.parametrize("name", [name for name in SCENARIOS if name != "collect"])
def test_a_full_disk_leaves_the_state_before_or_after(name: str, tmp_path: Path) -> None:
    scenario = SCENARIOS[name]
    template = tmp_path / "template"
    scenario.prepare(make_registry(template))
    steps, states, final = _observe(scenario, _copy(template, tmp_path / "whole"), links=True)
    refused = 0
    for index in range(len(steps)):
        world = _copy(template, tmp_path / "refused")
        registry = Registry.open(world / "root")
        refused += _is_refused(scenario, registry, index)
        assert see(registry) in states
        assert list(leftovers(registry.root)) == []
        scenario.act(registry)
        assert logs(registry) == final
        shutil.rmtree(world)
    assert refused >= 2


def _is_refused(scenario: Scenario, registry: Registry, index: int) -> bool:
    try:
        with files.watch_steps(_refuse_at(index)):
            scenario.act(registry)
    except StorageFailed:
        return True
    return False


def _refuse_at(index: int) -> Callable[[str], None]:
    seen: list[str] = []

    def refuse(label: str) -> None:
        seen.append(label)
        if len(seen) == index + 1 and not label.startswith("unlink "):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    return refuse


def test_feedback_of_a_killed_writer_keeps_every_whole_line(tmp_path: Path) -> None:
    registry = make_registry(tmp_path / "template")
    registry.append_feedback("support", "one", b'{"n": 1}\n')
    steps: list[str] = []
    with files.watch_steps(steps.append):
        registry.append_feedback("support", "one", b'{"n": 2}\n')
    assert steps
    kill_at(0, lambda: registry.append_feedback("support", "one", b'{"n": 3}\n'))
    registry.append_feedback("support", "one", b'{"n": 4}\n')
    (path,) = (registry.root / "feedback/support/one").iterdir()
    assert path.read_bytes() == b'{"n": 1}\n{"n": 2}\n{"n": 4}\n'


def test_a_death_that_is_told_again_after_a_kill_counts_once(tmp_path: Path) -> None:
    registry = make_registry(tmp_path / "template")
    steps: list[str] = []
    with files.watch_steps(steps.append):
        registry.record_engine_death("one", 1.0, ["support@1"])
    assert len(steps) >= 3
    for index in range(len(steps)):
        at = 10.0 + index
        world = _copy(tmp_path / "template", tmp_path / f"killed-{index}")
        other = Registry.open(world / "root")
        kill_at(min(index, 2), partial(other.record_engine_death, "one", at, ["support@2"]))
        other.record_engine_death("one", at, ["support@2"])
        assert other.engine_deaths("support@2") == 1
        assert other.engine_deaths("support@1") == 1


def _copy(source: Path, target: Path) -> Path:
    return Path(shutil.copytree(source, target, symlinks=True))
