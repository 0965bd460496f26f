from __future__ import annotations

import os
import time

import pytest

from registry.errors import CorruptStore
from registry.store import Registry
from tests.fakes.store import beat, leftovers, put

DAY = 86_400.0


@pytest.fixture
def deleted(registry: Registry) -> Registry:
    """A store whose version 2 is deleted."""
    put(registry, seed=1)
    put(registry, seed=2)
    registry.delete("support", 2, who="tester")
    return registry


def folder_exists(registry: Registry) -> bool:
    return (registry.root / "adapters/support/versions/2").exists()


def test_a_dry_run_says_what_would_go_and_moves_nothing(deleted: Registry) -> None:
    assert deleted.gc().trashed == ("support@2",)
    assert folder_exists(deleted)
    assert list((deleted.root / "trash").iterdir()) == []


def test_a_deleted_version_goes_to_the_trash_and_a_day_later_for_good(deleted: Registry) -> None:
    assert deleted.gc(apply=True).trashed == ("support@2",)
    assert not folder_exists(deleted)
    (item,) = (deleted.root / "trash").glob("*/*")
    assert ".support@2." in item.name
    assert deleted.gc(apply=True).emptied == ()
    assert deleted.gc(apply=True, now=time.time() + DAY - 60).emptied == ()
    assert deleted.gc(now=time.time() + DAY + 1).emptied == (str(item.relative_to(deleted.root)),)
    assert item.exists()
    assert deleted.gc(apply=True, now=time.time() + DAY + 1).emptied == (str(item.relative_to(deleted.root)),)
    assert list((deleted.root / "trash").iterdir()) == []


def test_what_a_replica_holds_is_kept_until_it_lets_go(deleted: Registry) -> None:
    deleted.beat(beat("one", "support@2", "other@1"))
    report = deleted.gc(apply=True)
    assert report.trashed == ()
    assert report.kept_because == {"support@2": "resident in replica one"}
    assert folder_exists(deleted)
    deleted.beat(beat("one", "support@1"))
    assert deleted.gc(apply=True).trashed == ("support@2",)


def test_a_replica_that_was_silent_for_a_day_holds_nothing(deleted: Registry) -> None:
    deleted.beat(beat("one", "support@2"))
    assert deleted.gc(apply=True, now=time.time() + DAY - 60).trashed == ()
    assert deleted.gc(apply=True, now=time.time() + DAY + 60).trashed == ("support@2",)


@pytest.mark.parametrize("where", ["replicas/one.json", "adapters/support/aliases/stable/1.json"])
def test_a_reason_that_cannot_be_read_stops_the_whole_collection(where: str, deleted: Registry) -> None:
    put(deleted, "another", seed=1)
    put(deleted, "another", seed=2)
    deleted.delete("another", 2, who="tester")
    deleted.beat(beat("one"))
    path = deleted.root / where
    path.chmod(0o644)
    path.write_bytes(b"{ torn")
    with pytest.raises(CorruptStore):
        deleted.gc(apply=True)
    assert folder_exists(deleted)
    assert (deleted.root / "adapters/another/versions/2").exists()


def test_an_adapter_with_a_rollout_log_keeps_its_versions(deleted: Registry) -> None:
    (deleted.root / "rollouts/support").mkdir(parents=True)
    (deleted.root / "rollouts/support/1.json").write_text("{}")
    assert deleted.gc(apply=True).kept_because == {"support@2": "its adapter has a rollout log"}


def test_a_version_in_the_trash_that_an_alias_points_to_is_put_back(deleted: Registry) -> None:
    """What is left when an alias move and a collector race, and both are killed."""
    deleted.gc(apply=True)
    log = deleted.root / "adapters/support/aliases/stable"
    entry = (
        (log / "1.json").read_text().replace('"seq": 1', '"seq": 2').replace('"version": 1', '"version": 2')
    )
    (log / "2.json").write_text(entry)
    report = deleted.gc(apply=True, now=time.time() + 2 * DAY)
    assert report.kept_because == {"support@2": "an alias points to it; put back from the trash"}
    assert report.emptied == ()
    assert folder_exists(deleted)
    assert deleted.catalogue.view("support") is not None


def test_live_versions_and_fresh_work_are_left_alone(registry: Registry) -> None:
    put(registry)
    (registry.root / "staging" / "upload").mkdir()
    (registry.root / "adapters/support/.golden.jsonl.ab.tmp").write_bytes(b"")
    report = registry.gc(apply=True)
    assert (report.trashed, report.emptied, report.kept_because) == ((), (), {})
    assert len(list(leftovers(registry.root))) == 2


def test_abandoned_work_goes_to_the_trash_after_a_day(registry: Registry) -> None:
    put(registry)
    (registry.root / "staging" / "upload").mkdir()
    (registry.root / "staging" / "upload" / "weights").write_bytes(b"half")
    temporaries = [
        "keys/.mac.ab.tmp",
        "adapters/support/aliases/stable/.2.json.ab.tmp",
        "replicas/.one.json.ab.tmp",
    ]
    for name in temporaries:
        (registry.root / name).write_bytes(b"")
        os.utime(registry.root / name, (1, 1))
    os.utime(registry.root / "staging" / "upload", (1, 1))
    report = registry.gc(apply=True)
    assert sorted(report.trashed) == sorted(["staging/upload", *temporaries])
    assert list(leftovers(registry.root)) == []
    assert registry.aliases("support") == {"stable": 1}
    assert len(registry.gc(apply=True, now=time.time() + DAY + 1).emptied) == 4
    assert list((registry.root / "trash").iterdir()) == []
