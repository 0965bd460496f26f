"""A root that is not where it was opened: nothing is written, nothing is made, and it is told."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from registry.entries.keyring import KeyRing
from registry.entries.keys import KeyStore
from registry.entries.rights import Scope
from registry.errors import RootAway
from registry.storage import anchor, files
from registry.store import Registry
from registry.watcher import Watcher
from tests.fakes.adapters import make_adapter
from tests.fakes.base import make_base
from tests.fakes.mounts import away, back
from tests.fakes.store import beat, make_registry, put

WRITES: dict[str, Callable[[Registry], object]] = {
    "heartbeat": lambda r: r.beat(beat()),
    "feedback": lambda r: r.append_feedback("support", "one", b"{}\n"),
    "evidence": lambda r: r.put_evidence("00112233445566aa", "one", b"{}"),
    "baseline": lambda r: r.put_baseline("support", "one", b"{}"),
    "death": lambda r: r.record_engine_death("one", 1.0, []),
    "secret": lambda r: r.secret("fresh"),
    "key": lambda r: KeyStore(r.root).create([Scope.INFER], who="tester"),
    "folder": lambda r: files.make_directory(r.root / "adapters" / "support" / "aliases"),
}


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    registry = make_registry(tmp_path)
    put(registry)
    return registry


@pytest.mark.parametrize("name", WRITES)
def test_nothing_is_written_at_a_bare_mount_point(name: str, registry: Registry) -> None:
    elsewhere = away(registry)
    with pytest.raises(RootAway, match="check that the root is mounted") as caught:
        WRITES[name](registry)
    assert caught.value.http_status == 503
    assert list(registry.root.iterdir()) == []
    back(registry, elsewhere)
    WRITES[name](registry)


@pytest.mark.parametrize("content", [True, False])
def test_a_root_that_is_away_damages_no_version(registry: Registry, content: bool) -> None:
    version = registry.version("support", 1)
    elsewhere = away(registry)
    with pytest.raises(RootAway, match="check that the root is mounted"):
        registry.verify_version(version, content=content)
    back(registry, elsewhere)
    assert registry.quarantined("support", 1) is None
    registry.verify_version(version, content=content)


def test_a_publish_is_refused_before_anything_is_made(registry: Registry, tmp_path: Path) -> None:
    folder = make_adapter(tmp_path / "more", seed=9)
    elsewhere = away(registry)
    with pytest.raises(RootAway):
        registry.publish("fresh", folder, who="tester")
    assert list(registry.root.iterdir()) == []
    back(registry, elsewhere)
    assert registry.publish("fresh", folder, who="tester").version.number == 1


def test_another_root_in_its_place_is_not_written_to(registry: Registry, tmp_path: Path) -> None:
    elsewhere = registry.root.rename(tmp_path / "elsewhere")
    other = Registry.init(tmp_path / "other", make_base(tmp_path / "base-2"), name="tiny")
    other.root.rename(registry.root)
    with pytest.raises(RootAway, match="holds another root"):
        registry.beat(beat())
    shutil.rmtree(registry.root)
    elsewhere.rename(registry.root)
    registry.beat(beat())


def test_each_root_has_an_identity_of_its_own_that_moves_with_it(registry: Registry, tmp_path: Path) -> None:
    other = make_registry(tmp_path / "two")
    mine = anchor.identity(registry.root)
    assert mine != anchor.identity(other.root)
    assert anchor.identity(registry.root.rename(tmp_path / "moved")) == mine


def test_a_root_of_an_earlier_release_is_known_by_its_base(registry: Registry) -> None:
    layout = registry.root / "layout.json"
    layout.write_text('{"format": "wardrobe", "major": 1, "minor": 0}')
    anchor.drop(registry.root)
    again = Registry.open(registry.root)
    again.beat(beat())
    elsewhere = away(again)
    with pytest.raises(RootAway):
        again.beat(beat())
    back(again, elsewhere)
    again.beat(beat())


def test_an_empty_mount_point_is_no_root_without_adapters(registry: Registry) -> None:
    watcher = Watcher(registry)
    watcher.refresh()
    elsewhere = away(registry)
    (registry.root / "changes").mkdir()
    (registry.root / "adapters").mkdir()
    with pytest.raises(RootAway):
        watcher.refresh()
    assert "support" in watcher.view.adapters
    shutil.rmtree(registry.root)
    elsewhere.rename(registry.root)
    watcher.refresh()
    assert "support" in watcher.view.adapters


def test_keys_are_not_taken_for_unused_while_the_root_is_away(registry: Registry) -> None:
    _, token = KeyStore(registry.root).create([Scope.INFER], who="tester")
    ring = KeyRing(registry.root)
    elsewhere = away(registry)
    with pytest.raises(RootAway):
        ring.refresh()
    assert ring.check(token) is not None
    back(registry, elsewhere)
    ring.refresh()


def test_opening_and_reading_write_nothing(registry: Registry) -> None:
    anchor.drop(registry.root)
    before = {path: path.stat().st_mtime_ns for path in registry.root.rglob("*")}
    again = Registry.open(registry.root)
    assert again.adapters() == ["support"]
    again.verify()
    again.gc()
    assert {path: path.stat().st_mtime_ns for path in registry.root.rglob("*")} == before
