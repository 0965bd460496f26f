"""The real Prometheus and Alertmanager over our real router (with a fake engine): data, alerts, an abort."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from registry.keys import KeyStore, Scope
from serve.router.assignment import Arm
from tests.deploy.monitoring import address, alertmanager, free_port, lay_out, prometheus, wait
from tests.fakes.served import Served, make_root, publish, serve, wait_until

CANARY = "support@2"


@pytest.fixture
def key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    # The rollout's own tests would be quicker than any alert; here they do not look.
    monkeypatch.setattr("serve.rollout.controller.TICK_SECONDS", 3600.0)
    registry = make_root(tmp_path)
    for seed in (1, 2):
        publish(registry, tmp_path, "support", seed)
    return KeyStore(registry.root).create([Scope.ADMIN, Scope.INFER], who="tester")[1]


@pytest.fixture
def served(key: str, tmp_path: Path) -> Iterator[Served]:
    from registry.store import Registry

    with serve(Registry.open(tmp_path / "root"), tmp_path) as server:
        server.client.headers["authorization"] = f"Bearer {key}"
        yield server


def test_a_failing_canary_is_aborted_through_prometheus_and_alertmanager(
    served: Served, key: str, tmp_path: Path
) -> None:
    here, port = address(str(served.client.base_url)).strip("/"), free_port()
    folder = lay_out(tmp_path / "watch", server=here, alertmanager=f"127.0.0.1:{port}", key=key)
    served.open_rollout(weight=5_000)
    served.inner.plays[CANARY] = "500"
    with alertmanager(folder, port), prometheus(folder, free_port()) as watch:
        wait(lambda: watch.value("sum(up)") == 1, "the target is up")
        wait(lambda: watch.value("sum(wardrobe_engine_ready)") == 1, "the replica is ready")
        fires = 'sum(ALERTS{alertname="CanaryWorseThanStable", alertstate="firing"})'
        wait(lambda: talk(served, 30) and watch.value(fires) == 1, "the alert fires")
        wait(lambda: last_state(served) == "rolled_back", "the rollout is aborted")
    entry = served.registry.rollout("support")
    assert entry is not None
    assert entry.reason == "alert"
    assert "CanaryWorseThanStable fires: support: the canary fails" in entry.sentence
    served.runtime.watcher.refresh()
    assert {served.chat("support").headers["x-wardrobe-adapter"] for _ in range(20)} == {"support@1"}
    wait_until(lambda: served.runtime.metrics.inflight() == 0, "all is settled")
    assert served.runtime.metrics.bind("support", "2", Arm.CANARY).outcomes.total() > 100


def talk(served: Served, count: int) -> bool:
    """Begin `count` conversations; each is answered, whatever the canary does."""
    for _ in range(count):
        messages = [{"role": "user", "content": os.urandom(8).hex()}]
        body = {"model": "support", "messages": messages}
        assert served.client.post("/v1/chat/completions", json=body).status_code == 200
    return True


def last_state(served: Served) -> str:
    entry = served.registry.rollout("support")
    return "" if entry is None else entry.state


def test_a_wrong_key_gets_no_metrics_and_prometheus_says_so(served: Served, tmp_path: Path) -> None:
    here = address(str(served.client.base_url)).strip("/")
    folder = lay_out(tmp_path / "watch", server=here, alertmanager="127.0.0.1:1", key="wardrobe_no_key")
    with prometheus(folder, free_port()) as watch:
        wait(lambda: [one for one in watch.targets() if one["lastError"]], "it is refused")
        assert watch.value("sum(up)") == 0
        assert "401" in watch.targets()[0]["lastError"]
