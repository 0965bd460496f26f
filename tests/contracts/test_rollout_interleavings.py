"""Two changes around a rollout that race, in every order of their steps that one pause allows.

While the first is about to take its step k, the second runs from beginning to end; this for every k.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from registry.errors import Conflict, NotFound
from registry.names import STABLE
from registry.storage import files
from registry.store import Registry
from tests.contracts.test_rollout_crashes import Change, happen, open_rollout, opened, unsettled, versions
from tests.fakes.store import make_registry


def _promote(registry: Registry) -> None:
    registry.promote("support", 3, who="carl")


def _roll_back(registry: Registry) -> None:
    registry.rollback("support", who="carl")


def _delete(registry: Registry) -> None:
    registry.delete("support", 2, who="carl")


@pytest.mark.parametrize("change", [_promote, _roll_back, _delete], ids=["promote", "rollback", "delete"])
@pytest.mark.parametrize("start_first", [True, False], ids=["change-interrupts", "start-interrupts"])
def test_a_start_stands_on_what_a_change_at_the_same_time_left(
    change: Change, start_first: bool, tmp_path: Path
) -> None:
    template = tmp_path / "template"
    prepared = make_registry(template)
    versions(prepared)
    if change is _roll_back:
        prepared.promote("support", 3, who="tester")
    first, second = (open_rollout, change) if start_first else (change, open_rollout)
    won = set()
    index = 0
    while True:
        world = Path(shutil.copytree(template, tmp_path / f"world-{index}"))
        first_done, second_done, reached = _race(world, first, second, index)
        if not reached:
            break
        index += 1
        registry = Registry.open(world / "root")
        started, changed = (first_done, second_done) if start_first else (second_done, first_done)
        won.add((started, changed))
        _check_race(registry, change, started=started, changed=changed)
    assert index >= 6
    assert any(started for started, _ in won)
    assert {changed for _, changed in won} == {True, False}
    assert change is not _delete or (True, True) not in won


def _race(world: Path, first: Change, second: Change, index: int) -> tuple[bool, bool, bool]:
    registry, interrupting = Registry.open(world / "root"), Registry.open(world / "root")
    other: list[bool] = []
    labels: list[str] = []

    def interrupt(label: str) -> None:
        labels.append(label)
        if len(labels) == index + 1 and not other:
            other.append(False)  # its own steps are not interrupted again
            other[0] = _done(second, interrupting)

    with files.watch_steps(interrupt):
        done = _done(first, registry)
    return done, bool(other and other[0]), bool(other)


def _done(change: Change, registry: Registry) -> bool:
    try:
        change(registry)
    except (Conflict, NotFound):
        return False
    return True


def _check_race(registry: Registry, change: Change, *, started: bool, changed: bool) -> None:
    last = registry.rollout("support")
    before = 3 if change is _roll_back else 1
    after = {_promote: 3, _roll_back: 1, _delete: before}[change]  # type: ignore[index]
    assert registry.aliases("support") == {"stable": after if changed else before}
    live = {version.number for version in registry.versions("support")}
    assert live == ({1, 3} if change is _delete and changed else {1, 2, 3})
    assert (last is not None and last.open) == started
    if last is not None and started:
        assert last.stable == (after if changed else before)
        happen("abort")(registry)
        assert registry.aliases("support") == {"stable": last.stable}
    if last is not None and not started:
        assert (last.state, last.reason) == ("rolled_back", "withdrawn")


SETTLED = {"promoted": 2, "closed": 2, "rolled_back": 1, "hold": 1}


@pytest.mark.parametrize(
    ("prepare", "first", "second"),
    [
        (opened("loaded"), happen("promote"), happen("guard")),
        (opened("loaded"), happen("promote"), happen("suspect")),
        (opened("loaded", "promote"), happen("cooled"), happen("abort")),
        (opened("loaded", "promote"), happen("abort"), happen("cooled")),
        (opened("loaded", "promote"), happen("guard"), lambda r: open_rollout(r, 3)),
        (unsettled("loaded", "promote"), lambda r: r.settle_rollout("support"), happen("guard")),
        (unsettled("loaded", "promote"), lambda r: r.settle_rollout("support"), happen("cooled")),
        (unsettled("loaded", "promote", "guard"), lambda r: r.settle_rollout("support"), _promote),
        (unsettled("loaded", "promote", "guard"), lambda r: r.gc(apply=True), lambda r: open_rollout(r, 3)),
    ],
)
def test_stable_ends_where_the_last_entry_says_whoever_settles_late(
    prepare: Change, first: Change, second: Change, tmp_path: Path
) -> None:
    template = tmp_path / "template"
    prepare(make_registry(template))
    index = 0
    while True:
        world = Path(shutil.copytree(template, tmp_path / f"world-{index}"))
        _, done, reached = _race(world, first, second, index)
        if not reached:
            break
        index += 1
        registry = Registry.open(world / "root")
        last = registry.rollout("support")
        assert last is not None
        seen = registry.aliases("support")
        registry.settle_rollout("support")
        assert registry.aliases("support") == seen
        assert registry.settle_rollout("support") is None
        if second is _promote and done:
            assert seen == {"stable": 3}
        else:
            assert seen == {"stable": 1 if last.state == "preloading" else SETTLED[last.state]}
        if not last.open or last.state == "promoted":
            move = registry.catalogue.aliases.last("support", STABLE)
            assert move is not None
            assert {"stable": move.version} == seen
    assert index >= 3
