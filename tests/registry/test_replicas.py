from __future__ import annotations

import os
import time

import pytest

from registry.errors import InvalidName
from registry.store import Registry
from tests.fakes.store import beat
from tests.fakes.terminal import Terminal


def live(registry: Registry, now: float) -> dict[str, bool]:
    return {heartbeat.replica: alive for heartbeat, alive in registry.replicas(now)}


def test_a_heartbeat_is_read_as_it_was_written(registry: Registry) -> None:
    registry.beat(beat("Host-8000", "support@1", "support@2"))
    assert registry.replicas() == [(beat("Host-8000", "support@1", "support@2"), True)]


def test_a_replica_is_live_within_ten_seconds_of_its_beat(registry: Registry) -> None:
    registry.beat(beat("one"))
    now = time.time()
    assert live(registry, now + 9) == {"one": True}
    assert live(registry, now + 11) == {"one": False}
    registry.beat(beat("one"))
    assert live(registry, now + 12) == {"one": True}


def test_a_replica_whose_clock_is_slow_is_seen_alive_by_its_changes(registry: Registry) -> None:
    path = registry.root / "replicas/one.json"
    now = time.time()
    for second in range(0, 60, 2):
        registry.beat(beat("one"))
        os.utime(path, (now + second - 3600, now + second - 3600))
        alive = live(registry, now + second)["one"]
    assert alive
    assert live(registry, now + 75) == {"one": False}


def test_status_names_a_few_of_a_thousand_residents(registry: Registry) -> None:
    registry.beat(beat("one", *(f"a{number:04}@1" for number in range(1_024))))
    status = Terminal(("--root", str(registry.root))).ok("status").out
    [line] = [line for line in status.splitlines() if line.startswith("one ")]
    assert line.endswith("a0019@1 and 1004 more (--json lists them)")
    assert "1024/" in line


def test_a_removed_replica_is_forgotten(registry: Registry) -> None:
    registry.beat(beat("one"))
    registry.remove_replica("one")
    registry.remove_replica("one")
    assert registry.replicas() == []


@pytest.mark.parametrize("name", ["", "../one", "a/b", ".one"])
def test_a_replica_may_not_leave_its_folder(name: str, registry: Registry) -> None:
    with pytest.raises(InvalidName):
        registry.beat(beat(name))
