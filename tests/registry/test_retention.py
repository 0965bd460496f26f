"""What the servers write is kept for a time and up to a size; the oldest goes first."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from registry.changes import retention
from registry.records import Retention
from registry.store import Registry
from tests.fakes.store import beat, make_registry, put

DAY = 86_400.0
NOW = time.time()


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    registry = make_registry(tmp_path)
    put(registry)
    return registry


def limited(registry: Registry, **limits: int) -> Registry:
    """Return the registry with other limits."""
    return Registry(replace(registry.catalogue.root, retention=Retention(**limits)))


def write(registry: Registry, name: str, *, days: float, size: int = 10) -> Path:
    """Write a file that was last changed `days` ago."""
    path = registry.root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    os.utime(path, (NOW - days * DAY, NOW - days * DAY))
    return path


def test_old_feedback_goes_and_young_stays(registry: Registry) -> None:
    old = write(registry, "feedback/support/one/2026-01-01.jsonl", days=91)
    young = write(registry, "feedback/support/one/2026-03-01.jsonl", days=89)
    assert registry.tidy() == ["feedback/support/one/2026-01-01.jsonl"]
    assert (old.exists(), young.exists()) == (False, True)


def test_of_too_much_feedback_the_oldest_goes_first(registry: Registry) -> None:
    for day in range(1, 6):
        write(registry, f"feedback/support/one/2026-01-0{day}.jsonl", days=10 - day, size=100)
    registry = limited(registry, feedback_bytes=250)
    assert sorted(registry.tidy()) == [f"feedback/support/one/2026-01-0{day}.jsonl" for day in (1, 2, 3)]
    assert registry.tidy() == []


def test_the_newest_log_of_each_replica_stays_whatever_its_size(registry: Registry) -> None:
    for replica in ("one", "two"):
        for number in (1, 2):
            write(registry, f"logs/{replica}/engine-00000{number}.log", days=400 - number, size=1_000)
    registry = limited(registry, logs_bytes=10)
    assert sorted(registry.tidy()) == [f"logs/{replica}/engine-000001.log" for replica in ("one", "two")]


def test_a_replica_that_is_long_gone_is_forgotten_with_its_baselines(registry: Registry) -> None:
    registry.beat(beat("gone"))
    registry.beat(beat("here"))
    registry.put_baseline("support", "gone", b"{}")
    for name in ("replicas/gone.json", "baselines/support/gone.json"):
        os.utime(registry.root / name, (NOW - 8 * DAY, NOW - 8 * DAY))
    assert sorted(retention.tidy(registry.catalogue, NOW)) == [
        "baselines/support/gone.json",
        "replicas/gone.json",
    ]
    assert [found.replica for found, _ in registry.replicas()] == ["here"]


def test_evidence_of_an_open_rollout_stays_whatever_its_age(registry: Registry) -> None:
    registry.put_evidence("00112233445566aa", "one", b"{}")
    assert retention.outlived(registry.catalogue, NOW + 400 * DAY) == []


def test_a_collection_says_what_it_would_remove_and_removes_it(registry: Registry) -> None:
    write(registry, "feedback/support/one/2026-01-01.jsonl", days=91)
    assert registry.gc().emptied == ("feedback/support/one/2026-01-01.jsonl",)
    assert registry.gc(apply=True).emptied == ("feedback/support/one/2026-01-01.jsonl",)
    assert registry.gc(apply=True).emptied == ()


def test_the_limits_are_settings_of_the_root(registry: Registry) -> None:
    path = registry.root / "wardrobe.toml"
    path.write_text(f"{path.read_text()}\n[retention]\nfeedback_days = 3\n")
    assert Registry.open(registry.root).catalogue.root.retention == Retention(feedback_days=3)
