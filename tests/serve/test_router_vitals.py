"""What a replica tells about itself at a scrape: real router, real root, fake engine."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from serve.router.telemetry.vitals import restarts
from serve.settings import RESTARTS_VARIABLE
from tests.fakes.served import Served, make_root, publish, serve, wait_until


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    registry = make_root(tmp_path)
    publish(registry, tmp_path, "support", 1)
    publish(registry, tmp_path, "raw", 2, no_stable=True)
    with serve(registry, tmp_path) as running:
        yield running


def test_a_quiet_replica_is_up_ready_and_lacks_nothing(served: Served) -> None:
    assert served.metric("wardrobe_engine_up", replica="r1") == 1
    assert served.metric("wardrobe_engine_ready", replica="r1") == 1
    assert served.metric("wardrobe_engine_restarts_total", replica="r1") == 0
    assert served.metric("wardrobe_reconcile_drift_adapters", replica="r1") == 0
    assert served.metric("wardrobe_auth_required") == 0
    assert served.metric("wardrobe_registry_problems") == 0


def test_a_replica_that_drains_is_up_and_not_ready(served: Served) -> None:
    served.runtime.drain(on=True)
    assert served.metric("wardrobe_engine_up", replica="r1") == 1
    assert served.metric("wardrobe_engine_ready", replica="r1") == 0
    served.runtime.drain(on=False)


def test_a_dead_engine_is_neither(served: Served) -> None:
    served.engine.die()
    assert served.metric("wardrobe_engine_up", replica="r1") == 0
    assert served.metric("wardrobe_engine_ready", replica="r1") == 0


def test_the_registry_is_counted_by_what_it_serves(served: Served) -> None:
    served.publish("support", 3)
    assert served.metric("wardrobe_registry_adapters", state="serving") == 1
    assert served.metric("wardrobe_registry_adapters", state="idle") == 1
    assert served.metric("wardrobe_registry_versions", state="live") == 3
    served.registry.quarantine("support", 2, "a test says so", who="tester")
    served.runtime.watcher.refresh()
    assert served.metric("wardrobe_registry_versions", state="quarantined") == 1


def test_a_stable_that_does_not_load_is_drift_until_it_does(served: Served) -> None:
    served.engine.refusals["support@2"] = "it is not liked"
    served.publish("support", 3)
    served.registry.promote("support", 2, who="tester")
    wait_until(lambda: served.metric("wardrobe_reconcile_drift_adapters", replica="r1") == 1, "it drifts")
    served.registry.promote("support", 1, who="tester")
    wait_until(lambda: served.metric("wardrobe_reconcile_drift_adapters", replica="r1") == 0, "it is well")


def test_the_last_look_at_the_registry_has_a_time_that_goes_on(served: Served) -> None:
    name = "wardrobe_registry_last_success_timestamp_seconds"
    first = served.metric(name)
    assert first > 1_700_000_000
    wait_until(lambda: served.metric(name) > first, "it looks again")


def test_restarts_are_what_the_launcher_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(RESTARTS_VARIABLE, "3")
    assert restarts() == 3
    monkeypatch.setenv(RESTARTS_VARIABLE, "many")
    assert restarts() == 0
