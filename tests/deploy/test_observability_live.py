"""The real Prometheus and Alertmanager over our real router (with a fake engine): data, alerts, an abort."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.observability.catalogue import ENGINE
from loadtests.live import free_port
from registry.entries.keys import KeyStore
from registry.entries.rights import Scope
from serve.rollout.assignment import Arm
from serve.rollout.policy import Policy, RampStep
from tests.deploy.monitoring import address, alertmanager, empty_pictures, lay_out, prometheus, wait
from tests.deploy.watching import GRAFANA
from tests.fakes.http_server import served as served_text
from tests.fakes.served import Served, make_root, publish, serve, wait_until
from tests.fakes.training_file import TrainingFile

CANARY = "support@2"


@pytest.fixture
def key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    # The rollout's own tests would be quicker than any alert; here they do not look.
    monkeypatch.setattr("serve.rollout.decision.controller.TICK_SECONDS", 3600.0)
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


def talk(served: Served, count: int, *, stream: bool = False) -> bool:
    """Begin `count` conversations; each is answered, whatever the canary does."""
    for _ in range(count):
        messages = [{"role": "user", "content": os.urandom(8).hex()}]
        body = {"model": "support", "messages": messages, "stream": stream}
        assert served.client.post("/v1/chat/completions", json=body).status_code == 200
    return True


def last_state(served: Served) -> str:
    entry = served.registry.rollout("support")
    return "" if entry is None else entry.state


def test_every_picture_has_data_after_traffic(tmp_path: Path) -> None:
    registry = make_root(tmp_path)
    for seed in (1, 2):
        publish(registry, tmp_path, "support", seed)
    with serve(registry, tmp_path) as server, served_text(TrainingFile()) as training:
        server.inner.expose = lambda: server.exposition().encode() + engine_text()
        server.open_rollout(ENDLESS, weight=5_000, stable=1, canary=2)
        here = address(str(server.client.base_url)).strip("/")
        folder = lay_out(
            tmp_path / "watch",
            server=here,
            alertmanager="127.0.0.1:1",
            key="none",
            node=address(training),
        )
        with prometheus(folder, free_port()) as watch:
            wait(lambda: watch.value("sum(up)") == 2, "both targets are up")
            arms = "count(count by (arm) (rate(wardrobe_inference_ttft_seconds_count[5m]) > 0))"
            wait(lambda: talk(server, 8, stream=True) and watch.value(arms) == 2, "both arms have rates")
            wait(lambda: watch.value("count(wardrobe_rollout_samples)") == 2, "the rollout has units")
            found = {path.stem: empty_pictures(watch, path, "support") for path in GRAFANA}
    assert found == {path.stem: [] for path in GRAFANA}


ENDLESS = Policy(name="endless", steps=(RampStep(weight=5_000, min_units=1_000_000, min_seconds=86_400),))


def engine_text() -> bytes:
    """Return what vLLM would expose: every name that is used, and counters that go on."""
    return "".join(f"{name} {time.time()}\n" for name in ENGINE).encode()


def test_a_wrong_key_gets_no_metrics_and_prometheus_says_so(served: Served, tmp_path: Path) -> None:
    here = address(str(served.client.base_url)).strip("/")
    folder = lay_out(tmp_path / "watch", server=here, alertmanager="127.0.0.1:1", key="wardrobe_no_key")
    with prometheus(folder, free_port()) as watch:
        wait(lambda: [one for one in watch.targets() if one["lastError"]], "it is refused")
        assert watch.value("sum(up)") == 0
        assert "401" in watch.targets()[0]["lastError"]
