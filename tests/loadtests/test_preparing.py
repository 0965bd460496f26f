"""Adapters for a scenario: made once, of the base's shapes or as copies, and only what is missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from registry.store import Registry
from tests.fakes.adapters import make_adapter
from tests.fakes.base import make_base
from tests.fakes.served import make_root, publish, serve
from tests.fakes.terminal import Terminal

NEEDS = ("adapters={prefix: load, count: 3}", "prepare={versions: 2, rank: 4}", "needs=some")
CHANGES = tuple(word for change in NEEDS for word in ("--set", change))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return Registry.init(tmp_path / "root", make_base(tmp_path / "base"), name="tiny").root


def test_every_version_is_registered_once_and_the_first_is_stable(root: Path) -> None:
    terminal = Terminal(("--root", str(root)))
    done = terminal.ok("loadtest", "prepare", "smoke", *CHANGES, "--json")
    assert done.json == {"registered": [f"load-00{a}@{n}" for a in range(3) for n in (1, 2)]}
    registry = Registry.open(root)
    assert registry.adapters() == ["load-000", "load-001", "load-002"]
    assert all(registry.aliases(name)["stable"] == 1 for name in registry.adapters())
    versions = [one for name in registry.adapters() for one in registry.versions(name)]
    assert {one.rank for one in versions} == {4}
    assert len({one.digest for one in versions}) == 6
    again = terminal.ok("loadtest", "prepare", "smoke", *CHANGES)
    assert again.out == "smoke: 0 versions registered\n"


def test_copies_are_of_the_version_that_was_named(root: Path, tmp_path: Path) -> None:
    source = Registry.open(root).publish("mine", make_adapter(tmp_path / "mine"), who="tester").version
    terminal = Terminal(("--root", str(root)))
    terminal.ok("loadtest", "prepare", "smoke", *CHANGES, "--like", "mine@1")
    found = Registry.open(root).versions("load-002")
    assert [one.digest for one in found] == [source.digest, source.digest]


def test_a_scenario_that_asks_for_adapters_of_ones_own_says_so(root: Path) -> None:
    done = Terminal(("--root", str(root)))("loadtest", "prepare", "smoke")
    assert done.code == 2
    assert "asks for adapters of your own; one adapter of your own; name it with --set" in done.err


def test_over_http_versions_are_copies_of_one_that_must_be_named(tmp_path: Path) -> None:
    registry = make_root(tmp_path)
    source = publish(registry, tmp_path, "mine", 1)
    with serve(registry, tmp_path) as served:
        terminal = Terminal(("--url", str(served.client.base_url)))
        refused = terminal("loadtest", "prepare", "smoke", *CHANGES)
        assert refused.code == 2
        assert "give --like NAME@N" in refused.err
        terminal.ok("loadtest", "prepare", "smoke", *CHANGES, "--like", "mine@1")
    found = [one for name in ("load-000", "load-001", "load-002") for one in registry.versions(name)]
    assert [one.digest for one in found] == [source.digest] * 6
