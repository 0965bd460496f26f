"""The concurrency contract of the store: many processes at once, no number twice, no move lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from registry.errors import Conflict, NotFound
from registry.store import Registry
from tests.contracts.crashing import together
from tests.fakes.adapters import make_adapter
from tests.fakes.store import make_registry, publish, put, without_links

PROCESSES = 6
ROUNDS = 5


def test_every_publisher_gets_a_number_of_its_own_and_no_move_is_lost(tmp_path: Path) -> None:
    registry = make_registry(tmp_path)
    seeds = [[100 * n + k for k in range(ROUNDS)] for n in range(PROCESSES)]
    for seed in (seed for group in seeds for seed in group):
        make_adapter(tmp_path / f"trained-{seed}", seed=seed)

    def publish_and_move(number: int) -> list[tuple[int, str, int]]:
        own = Registry.open(registry.root)
        done = []
        for seed in seeds[number]:
            version = put(own, seed=seed, no_stable=True)
            move = own.promote("support", version.number, who=f"process {number}")
            done.append((version.number, version.digest, move.seq))
        return done

    results = together(PROCESSES, publish_and_move, tmp_path)
    done = [tuple(item) for result in results for item in result]  # type: ignore[attr-defined]
    everything = list(range(1, PROCESSES * ROUNDS + 1))
    assert sorted(number for number, _, _ in done) == everything
    assert sorted(seq for _, _, seq in done) == everything
    assert {v.number: v.digest for v in registry.versions("support")} == {n: d for n, d, _ in done}
    log = registry.catalogue.aliases.log("support", "stable")
    assert [(move.seq, move.version) for move in log] == sorted((seq, number) for number, _, seq in done)
    assert all(result.ok for result in registry.verify())
    assert list((registry.root / "staging").iterdir()) == []


def test_the_same_content_published_at_once_gets_one_number_from_one_of_them(tmp_path: Path) -> None:
    registry = make_registry(tmp_path)
    make_adapter(tmp_path / "trained-1", seed=1)

    def publish_some(_: int) -> list[tuple[int, bool]]:
        own = Registry.open(registry.root)
        done = [publish(own, f"a{adapter}", seed=1) for adapter in range(ROUNDS)]
        return [(one.version.number, one.created) for one in done]

    results = together(PROCESSES, publish_some, tmp_path)
    for done in zip(*results, strict=True):
        assert {number for number, _ in done} == {1}
        assert [created for _, created in done].count(True) == 1
    for adapter in registry.adapters():
        assert [version.number for version in registry.versions(adapter)] == [1]
        assert registry.aliases(adapter) == {"stable": 1}
    assert list((registry.root / "staging").iterdir()) == []


def test_different_and_same_contents_at_once_get_one_number_each(tmp_path: Path) -> None:
    registry = make_registry(tmp_path)
    for seed in range(3):
        make_adapter(tmp_path / f"trained-{seed}", seed=seed)

    def publish_all(number: int) -> dict[str, int]:
        own = Registry.open(registry.root)
        return {
            str(seed): put(own, seed=seed).number for seed in sorted(range(3), key=lambda s: (s + number) % 3)
        }

    results = together(PROCESSES, publish_all, tmp_path)
    assert all(result == results[0] for result in results)
    assert sorted(results[0].values()) == [1, 2, 3]  # type: ignore[attr-defined]
    assert [version.number for version in registry.versions("support")] == [1, 2, 3]


def test_duplicates_that_are_asked_for_at_once_all_get_a_number(tmp_path: Path) -> None:
    registry = make_registry(tmp_path)
    make_adapter(tmp_path / "trained-1", seed=1)

    def publish_one(_: int) -> int:
        return put(Registry.open(registry.root), seed=1, allow_duplicate=True).number

    numbers = together(PROCESSES, publish_one, tmp_path)
    assert sorted(numbers) == list(range(1, PROCESSES + 1))  # type: ignore[type-var]


def test_everybody_reads_the_secret_that_one_of_them_made(tmp_path: Path) -> None:
    registry = make_registry(tmp_path)
    secrets = together(PROCESSES, lambda _: Registry.open(registry.root).secret("mac").hex(), tmp_path)
    assert set(secrets) == {registry.secret("mac").hex()}


@pytest.mark.parametrize("links", [True, False], ids=["links", "no-links"])
def test_a_delete_and_an_alias_move_never_leave_an_alias_without_its_version(
    links: bool, tmp_path: Path
) -> None:
    registry = make_registry(tmp_path)
    rounds = range(2, 26)
    for seed in (1, *rounds):
        put(registry, seed=seed)

    def race(number: int) -> list[int]:
        own = Registry.open(registry.root)
        won = []
        for version in rounds:
            try:
                if number:
                    own.delete("support", version, who="deleter")
                else:
                    own.set_alias("support", "beta", version, who="mover")
                won.append(version)
            except (Conflict, NotFound):
                continue
        return won

    with without_links(not links):
        moved, deleted = together(2, race, tmp_path)
    live = {version.number for version in registry.versions("support")}
    assert isinstance(deleted, list)
    assert live == {1, *rounds} - set(deleted)
    last = registry.catalogue.aliases.last("support", "beta")
    if moved:
        assert last is not None
        assert last.version is None or last.version in live


def test_two_first_versions_at_once_make_one_stable(tmp_path: Path) -> None:
    registry = make_registry(tmp_path)
    for seed in range(PROCESSES):
        make_adapter(tmp_path / f"trained-{seed}", seed=seed)

    def publish_one(number: int) -> int:
        return publish(Registry.open(registry.root), seed=number).version.number

    numbers = together(PROCESSES, publish_one, tmp_path)
    assert sorted(numbers) == list(range(1, PROCESSES + 1))  # type: ignore[type-var]
    assert registry.aliases("support") == {"stable": 1}
    assert len(registry.history("support")) == 1
