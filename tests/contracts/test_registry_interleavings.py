"""Two changes that race, in every order of their steps that one pause allows.

While the first is about to take its step k, the second runs from beginning to end; this for every k. What
each of them reported must then be true, and no alias may point to a version that is gone.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from registry.entries.aliases import AliasTarget
from registry.errors import WardrobeError
from registry.storage import files
from registry.store import Registry
from tests.fakes.store import make_registry, put

Change = Callable[[Registry], object]


@dataclass(frozen=True)
class Outcome:
    """What two racing changes reported, and the store after them."""

    first: bool
    second: bool
    registry: Registry
    label: str

    @property
    def live(self) -> set[int]:
        return {version.number for version in self.registry.versions("support")}


def _move(registry: Registry) -> object:
    return registry.set_alias("support", "beta", 2, who="mover")


def _promote(registry: Registry) -> object:
    return registry.promote("support", 2, who="promoter")


def _delete(registry: Registry) -> None:
    registry.delete("support", 2, who="deleter")


def _delete_and_collect(registry: Registry) -> object:
    registry.delete("support", 2, who="deleter")
    return registry.gc(apply=True)


def _collect(registry: Registry) -> object:
    return registry.gc(apply=True)


def _outcomes(prepare: Change, first: Change, second: Change, folder: Path) -> list[Outcome]:
    template = folder / "template"
    prepare(make_registry(template))
    found: list[Outcome] = []
    reached = True
    while reached:
        world = Path(shutil.copytree(template, folder / f"world-{len(found)}"))
        outcome, reached = _race(world, first, second, len(found))
        if reached:
            found.append(outcome)
    return found


def _race(world: Path, first: Change, second: Change, index: int) -> tuple[Outcome, bool]:
    other: list[bool] = []
    labels: list[str] = []

    def interrupt(label: str) -> None:
        labels.append(label)
        if len(labels) == index + 1 and not other:
            other.append(False)  # its own steps are not interrupted again
            other[0] = _done(second, Registry.open(world / "root"))

    with files.watch_steps(interrupt):
        done = _done(first, Registry.open(world / "root"))
    label = labels[index] if index < len(labels) else ""
    return Outcome(done, bool(other and other[0]), Registry.open(world / "root"), label), bool(other)


def _done(change: Change, registry: Registry) -> bool:
    try:
        change(registry)
    except WardrobeError:
        return False
    return True


def _check_aliases(outcome: Outcome) -> None:
    aliases = outcome.registry.catalogue.aliases
    for alias in aliases.names("support"):
        move = aliases.last("support", alias)
        if move is not None and move.version is not None:
            assert move.version in outcome.live, outcome.label
            assert (outcome.registry.root / f"adapters/support/versions/{move.version}").is_dir()
    assert all(result.ok for result in outcome.registry.verify())


def _two_versions(registry: Registry) -> None:
    put(registry, seed=1)
    put(registry, seed=2)


@pytest.mark.parametrize("delete", [_delete, _delete_and_collect], ids=["delete", "delete-and-gc"])
@pytest.mark.parametrize("move", [_move, _promote], ids=["alias", "promote"])
@pytest.mark.parametrize("deleted_first", [True, False], ids=["move-interrupts", "delete-interrupts"])
def test_a_delete_and_an_alias_move_are_never_both_done(
    deleted_first: bool, move: Change, delete: Change, tmp_path: Path
) -> None:
    pair = (delete, move) if deleted_first else (move, delete)
    outcomes = _outcomes(_two_versions, *pair, tmp_path)
    assert len(outcomes) >= 6
    for outcome in outcomes:
        deleted, moved = (outcome.first, outcome.second) if deleted_first else (outcome.second, outcome.first)
        assert not (deleted and moved), outcome.label
        assert deleted == (2 not in outcome.live), outcome.label
        assert moved == (2 in outcome.registry.aliases("support").values()), outcome.label
        _check_aliases(outcome)
    assert any(outcome.first for outcome in outcomes)
    assert any(outcome.second for outcome in outcomes)


def test_a_delete_that_races_with_a_promotion_to_where_stable_is_moves_nothing(tmp_path: Path) -> None:
    def prepare(registry: Registry) -> None:
        _two_versions(registry)
        registry.promote("support", 2, who="tester")

    for outcome in _outcomes(prepare, _delete, _promote, tmp_path):
        assert not outcome.first
        assert outcome.registry.aliases("support") == {"stable": 2}
        assert len(outcome.registry.history("support")) == 2


def test_a_collector_puts_back_what_an_alias_came_to_point_to(tmp_path: Path) -> None:
    """The mover had looked before the delete, and is killed before it looks again."""

    def prepare(registry: Registry) -> None:
        _two_versions(registry)
        registry.delete("support", 2, who="tester")

    def move_and_die(registry: Registry) -> None:
        tombstone = registry.catalogue.tombstones.read("support", 2)
        assert tombstone is not None
        target = AliasTarget(2, tombstone.digest, "promote")
        registry.catalogue.aliases.append("support", "stable", lambda _: target, "mover")

    outcomes = _outcomes(prepare, _collect, move_and_die, tmp_path)
    assert len(outcomes) >= 3
    moved = next(n for n, outcome in enumerate(outcomes) if ".support@2." in outcome.label)
    for number, outcome in enumerate(outcomes):
        if number > moved:  # the mover came after the second look; the next collection finds it
            outcome.registry.gc(apply=True)
        _check_aliases(outcome)
        assert outcome.registry.aliases("support") == {"stable": 2}, outcome.label


def test_the_same_content_twice_is_one_version_whichever_came_first(tmp_path: Path) -> None:
    def publish_it(registry: Registry) -> object:
        return put(registry, seed=9)

    outcomes = _outcomes(_two_versions, publish_it, publish_it, tmp_path)
    assert len(outcomes) >= 8
    for outcome in outcomes:
        assert outcome.first, outcome.label
        assert outcome.second, outcome.label
        assert outcome.live == {1, 2, 3}, outcome.label
        assert list((outcome.registry.root / "staging").iterdir()) == [], outcome.label
        _check_aliases(outcome)


def test_a_number_that_was_deleted_and_collected_during_a_publish_is_not_used_again(tmp_path: Path) -> None:
    def come_and_go(registry: Registry) -> None:
        number = put(registry, seed=8, no_stable=True).number
        registry.delete("support", number, who="tester")
        registry.gc(apply=True)

    def publish_it(registry: Registry) -> object:
        return put(registry, seed=9, no_stable=True)

    outcomes = _outcomes(_two_versions, publish_it, come_and_go, tmp_path)
    assert len(outcomes) >= 8
    for outcome in outcomes:
        assert outcome.first, outcome.label
        assert outcome.second, outcome.label
        buried = set(outcome.registry.catalogue.tombstones.numbers("support"))
        assert len(buried) == 1, outcome.label
        assert len(outcome.live) == 3, outcome.label
        assert not buried & outcome.live
        _check_aliases(outcome)
