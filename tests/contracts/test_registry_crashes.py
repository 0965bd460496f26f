"""The crash contract of the store: a process that is killed between any two steps loses nothing.

Each scenario is run once to count its steps. Then, for every step, a child process runs it on a fresh copy
and is killed with SIGKILL just before that step. Whoever opens the root afterwards must see one of the
states that the scenario allows, every file intact; doing the same again must reach the state that a run
without a crash reaches; and two days later nothing of the unfinished work is left.

The steps come from `registry.storage.files.watch_steps`, so a step that is added is killed at without being
named.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from registry.errors import NotFound
from registry.storage import files
from registry.store import Registry
from tests.contracts.crashing import break_links, kill_at
from tests.fakes.base import make_base
from tests.fakes.store import Snapshot, leftovers, make_registry, publish, put, snapshot

DAY = 86_400.0


@dataclass(frozen=True)
class Scenario:
    """What is there before, what is done, and at least how many steps it takes."""

    prepare: Callable[[Registry], object]
    act: Callable[[Registry], object]
    least_steps: int


def _publish_with_everything(registry: Registry) -> None:
    golden = registry.root.parent / "golden.jsonl"
    golden.write_text('{"prompt": "hello"}\n')
    publish(registry, seed=9, golden=golden, lineage={"seed": 9}, alias="tested", note="first")


def _two_versions(registry: Registry) -> None:
    put(registry, seed=1)
    put(registry, seed=2)


def _moved_twice(registry: Registry) -> None:
    _two_versions(registry)
    put(registry, seed=3)
    registry.promote("support", 2, who="tester")
    registry.promote("support", 3, who="tester")


def _rubbish(registry: Registry) -> None:
    """Leave deleted versions, a version that was trashed days ago, and work that nobody finished."""
    _moved_twice(registry)
    put(registry, seed=4)
    registry.delete("support", 4, who="tester")
    registry.gc(apply=True, now=time.time() - 3 * DAY)
    registry.delete("support", 1, who="tester")
    for name in ("abandoned", "forgotten"):
        folder = registry.root / "staging" / name
        folder.mkdir()
        (folder / "adapter_model.safetensors").write_bytes(b"half")
        os.utime(folder, (1, 1))


def _collect(registry: Registry) -> None:
    registry.gc(apply=True)


def _quarantine(registry: Registry) -> None:
    registry.quarantine("support", 2, "it harms", who="tester")


def _delete(registry: Registry) -> None:
    try:
        registry.delete("support", 2, who="tester")
    except NotFound:  # done already, before the crash
        assert 2 not in {version.number for version in registry.versions("support")}


def _nothing(registry: Registry) -> None:
    pass


SCENARIOS = {
    "publish-first": Scenario(_nothing, _publish_with_everything, 25),
    "publish-next": Scenario(_two_versions, lambda r: publish(r, seed=3, alias="stable"), 15),
    "publish-again": Scenario(_two_versions, lambda r: publish(r, seed=2, alias="stable"), 6),
    "alias-first": Scenario(_two_versions, lambda r: r.set_alias("support", "beta", 2, who="tester"), 6),
    "alias-next": Scenario(_two_versions, lambda r: r.promote("support", 2, who="tester"), 6),
    "alias-remove": Scenario(_two_versions, lambda r: r.remove_alias("support", "stable", who="tester"), 5),
    "rollback": Scenario(_moved_twice, lambda r: r.rollback("support", who="tester"), 6),
    "delete": Scenario(_two_versions, _delete, 6),
    "quarantine": Scenario(_two_versions, _quarantine, 6),
    "attest": Scenario(
        _two_versions, lambda r: r.attest("support", 2, "proof", {"passed": True}, who="t"), 6
    ),
    "gc": Scenario(_rubbish, _collect, 15),
}


@pytest.mark.parametrize("links", [True, False], ids=["links", "no-links"])
@pytest.mark.parametrize("name", SCENARIOS)
def test_a_kill_between_any_two_steps_leaves_a_whole_store(name: str, links: bool, tmp_path: Path) -> None:
    scenario = SCENARIOS[name]
    template = tmp_path / "template"
    scenario.prepare(make_registry(template))
    before = snapshot(Registry.open(template / "root"))
    steps, states, after = _observe(scenario, _copy(template, tmp_path / "whole"), links)
    assert len(steps) >= scenario.least_steps
    allowed = [before, *states, after]
    for index, label in enumerate(steps):
        world = _copy(template, tmp_path / "killed")
        kill_at(index, partial(_act, scenario, world), links=links)
        _check_whole(Registry.open(world / "root"), allowed, label)
        _check_repeat(world, scenario, before, after, label)
        shutil.rmtree(world)


def _observe(scenario: Scenario, world: Path, links: bool) -> tuple[list[str], list[Snapshot], Snapshot]:
    """Run without a crash; return the steps, what others could see before each, and the final state."""
    steps: list[str] = []
    states: list[Snapshot] = []
    other = Registry.open(world / "root")

    def note(label: str) -> None:
        steps.append(label)
        states.append(snapshot(other))
        break_links(label, links)

    with files.watch_steps(note):
        scenario.act(Registry.open(world / "root"))
    _check_monotone([*states, snapshot(other)])
    return steps, states, snapshot(other)


def _act(scenario: Scenario, world: Path) -> None:
    scenario.act(Registry.open(world / "root"))


def _check_monotone(states: list[Snapshot]) -> None:
    """A state that was left is never seen again: nothing flickers."""
    distinct = [state for n, state in enumerate(states) if n == 0 or state != states[n - 1]]
    assert len(distinct) <= 6
    assert all(state not in distinct[:n] for n, state in enumerate(distinct))


def _check_whole(registry: Registry, allowed: list[Snapshot], label: str) -> None:
    assert snapshot(registry) in allowed, f"killed before: {label}"
    assert [result for result in registry.verify() if not result.ok] == [], label
    for adapter in registry.adapters():
        view = registry.adapter_view(adapter)
        assert set(view.aliases.values()) <= set(view.versions), label
        last = {
            a: registry.catalogue.aliases.last(adapter, a) for a in registry.catalogue.aliases.names(adapter)
        }
        pointing = {alias for alias, move in last.items() if move is not None and move.version is not None}
        assert pointing == set(view.aliases), f"an alias lost its version, killed before: {label}"


def _check_repeat(world: Path, scenario: Scenario, before: Snapshot, after: Snapshot, label: str) -> None:
    registry = Registry.open(world / "root")
    numbers = set(registry.catalogue.versions.numbers("support"))
    if snapshot(registry) != after or before == after:
        scenario.act(registry)
    assert _without_facts(snapshot(registry)) == _without_facts(after), f"killed before: {label}"
    registry.gc(apply=True, now=time.time() + 2 * DAY)
    assert list(leftovers(registry.root)) == [], label
    assert _without_facts(snapshot(registry)) == _without_facts(after), label
    assert put(registry, seed=77).number > max(numbers, default=0)


def _without_facts(state: Snapshot) -> tuple[object, ...]:
    return state.versions, state.aliases, state.moves


def _copy(source: Path, target: Path) -> Path:
    return Path(shutil.copytree(source, target, symlinks=True))


def test_a_kill_between_any_two_steps_of_init_leaves_no_root_or_a_whole_one(tmp_path: Path) -> None:
    base = make_base(tmp_path / "base")
    steps: list[str] = []
    with files.watch_steps(steps.append):
        Registry.init(tmp_path / "whole", base)
    assert len(steps) >= 12
    for index, label in enumerate(steps):
        root = tmp_path / f"killed-{index}"
        kill_at(index, partial(Registry.init, root, base))
        if (root / "layout.json").exists():
            assert Registry.open(root).base.name == "base", label
        else:
            with pytest.raises(NotFound):
                Registry.open(root)
        assert put(Registry.init(root, base), seed=1).number == 1, label


def test_the_secret_is_the_same_after_a_kill_between_any_two_steps(tmp_path: Path) -> None:
    registry = make_registry(tmp_path / "template")
    steps: list[str] = []
    with files.watch_steps(steps.append):
        registry.secret("mac")
    assert len(steps) >= 3
    for index in range(len(steps)):
        world = _copy(tmp_path / "template", tmp_path / f"killed-{index}")
        kept = Registry.open(world / "root")
        kill_at(index, partial(kept.secret, "other"))
        first = kept.secret("other")
        assert len(first) == 32
        assert kept.secret("other") == first
