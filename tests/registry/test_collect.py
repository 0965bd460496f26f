from __future__ import annotations

import os
import time
from dataclasses import replace

import pytest

from registry.errors import CorruptStore
from registry.store import Registry
from tests.fakes.rollout_log import ROLLOUT, first_entry, go, start
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


@pytest.mark.parametrize(
    "where", ["replicas/one.json", "adapters/support/aliases/stable/1.json", "rollouts/support/1.json"]
)
def test_a_reason_that_cannot_be_read_stops_the_whole_collection(where: str, deleted: Registry) -> None:
    put(deleted, "another", seed=1)
    put(deleted, "another", seed=2)
    deleted.delete("another", 2, who="tester")
    put(deleted, seed=3)
    start(deleted, 3)
    deleted.beat(beat("one"))
    path = deleted.root / where
    path.chmod(0o644)
    path.write_bytes(b"{ torn")
    with pytest.raises(CorruptStore):
        deleted.gc(apply=True)
    assert folder_exists(deleted)
    assert (deleted.root / "adapters/another/versions/2").exists()


def test_an_open_rollout_keeps_its_versions_and_one_that_ended_does_not(registry: Registry) -> None:
    for seed in (1, 2, 3):
        put(registry, seed=seed)
    start(registry, 2)
    for number in (1, 2, 3):  # what a delete leaves that was killed before its second look
        registry.catalogue.tombstones.put("support", number, registry.version("support", number), "tester")
    report = registry.gc(apply=True)
    assert report.trashed == ("support@3",)
    why = f"rollout {ROLLOUT} is open"
    assert report.kept_because == {"support@1": why, "support@2": why}
    go(registry, "rolled_back")
    assert registry.gc(apply=True).trashed == ("support@2",)
    assert [version.number for version in registry.versions("support")] == [1]


def test_a_version_in_the_trash_that_an_open_rollout_uses_is_put_back(registry: Registry) -> None:
    for seed in (1, 2):
        put(registry, seed=seed)
    registry.delete("support", 2, who="tester")
    registry.gc(apply=True)
    registry.catalogue.rollouts.append("support", lambda _: first_entry(registry, 2))
    report = registry.gc(apply=True, now=time.time() + 2 * DAY)
    assert report.kept_because == {"support@2": f"rollout {ROLLOUT} is open; put back from the trash"}
    assert folder_exists(registry)


def test_a_delete_of_a_canary_that_was_killed_is_forgotten_after_an_hour(registry: Registry) -> None:
    for seed in (1, 2):
        put(registry, seed=seed)
    start(registry, 2)
    registry.catalogue.tombstones.put("support", 2, registry.version("support", 2), "tester")
    registry.gc(apply=True, now=time.time() + 3_601)
    assert registry.catalogue.tombstones.numbers("support") == []


def test_the_evidence_of_a_rollout_is_kept_for_a_month_after_its_end(registry: Registry) -> None:
    for seed in (1, 2):
        put(registry, seed=seed)
    start(registry, 2)
    registry.put_evidence(ROLLOUT, "one", b"{}")
    registry.record_engine_death("one", 2_000.0, ["support@2"])
    registry.record_engine_death("one", 2_001.0, ["support@2"])
    month = 2_000.0 + 30 * DAY
    assert registry.gc(apply=True, now=month + 9 * DAY).emptied == ("deaths/1.json",)
    go(registry, "rolled_back", at=2_000.0)
    assert registry.gc(apply=True, now=month - 1).emptied == ()
    assert registry.gc(now=month).emptied == (f"evidence/{ROLLOUT}",)
    assert registry.evidence(ROLLOUT) == {"one": b"{}"}
    assert registry.gc(apply=True, now=month).emptied == (f"evidence/{ROLLOUT}",)
    assert registry.evidence(ROLLOUT) == {}
    assert len(registry.rollout_log("support")) == 2
    assert registry.record_engine_death("two", 1.0, [])
    assert [death.seq for death in registry.catalogue.deaths.read()] == [2, 3]


def test_a_collection_settles_what_a_promotion_asks_for(registry: Registry) -> None:
    for seed in (1, 2):
        put(registry, seed=seed)
    start(registry, 2)
    last = registry.rollout("support")
    assert last is not None
    promoted = replace(last, seq=2, state="promoted", weight=10_000)
    registry.catalogue.rollouts.append("support", lambda _: promoted)
    registry.gc()
    assert len(registry.history("support")) == 1
    registry.gc(apply=True)
    assert registry.history("support")[-1].version == 2


def test_a_version_in_the_trash_that_an_alias_points_to_is_put_back(deleted: Registry) -> None:
    """What is left when an alias move and a collector race, and both are killed."""
    deleted.gc(apply=True)
    log = deleted.root / "adapters/support/aliases/stable"
    entry = (
        (log / "1.json").read_text().replace('"seq": 1', '"seq": 2').replace('"version": 1', '"version": 2')
    )
    (log / "2.json").write_text(entry)
    report = deleted.gc(apply=True, now=time.time() + 2 * DAY)
    assert report.kept_because == {"support@2": "alias stable points to it; put back from the trash"}
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
