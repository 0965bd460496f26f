"""The real Prometheus over the real server: targets, rules, and data behind every picture."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from deploy.observability.catalogue import ENGINE, server_families
from loadtests.live import Live, free_port, wardrobe
from tests.deploy.monitoring import Daemon, address, empty_pictures, lay_out, prometheus, wait
from tests.deploy.watching import GRAFANA, RULES
from tests.e2e.asking import ask
from tests.fakes.http_server import served
from tests.fakes.training_file import TrainingFile

POLICY = """\
name: watched
steps: [{weight: 50%, min_units: 100000, min_seconds: 86400}]
"""


@pytest.fixture(scope="module")
def rolling(live: Live, markers: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An adapter with an open rollout that ends only by hand."""
    policy = tmp_path_factory.mktemp("policy") / "policy.yaml"
    policy.write_text(POLICY)
    for folder in (markers["alpha"], markers["bravo"]):
        wardrobe(live.root, "register", "watched", folder)
    wardrobe(live.root, "rollout", "start", "watched@2", "--policy", policy)
    yield "watched"
    wardrobe(live.root, "rollout", "abort", "watched", "--why", "the test is over")


@pytest.fixture(scope="module")
def watch(live: Live, rolling: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    """Prometheus with the committed files over the server and a training run's text file."""
    folder = tmp_path_factory.mktemp("prometheus") / "files"
    with served(TrainingFile()) as training:
        here, node = f"127.0.0.1:{live.port}", address(training)
        lay_out(folder, server=here, alertmanager="127.0.0.1:1", key="none", node=node)
        with prometheus(folder, free_port()) as running:
            wait(lambda: running.value("sum(up)") == 2, "both targets are up")
            wait(
                lambda: ask_often(live, rolling) and running.value("sum(wardrobe_rollout_samples) > 8"),
                "the rollout has units in both arms",
            )
            # A rate needs samples before and after the traffic.
            wait(lambda: ask_often(live, rolling) and running.value(_BOTH_ARMS) == 2, "both arms have rates")
            yield running


_BOTH_ARMS = "count(count by (arm) (rate(wardrobe_inference_ttft_seconds_count{adapter='watched'}[5m]) > 0))"


def ask_often(live: Live, model: str) -> bool:
    """Begin a few conversations."""
    with live.client() as client:
        for number in range(4):
            ask(client, model, f"{number}: {time.time_ns()}")
    return True


def test_every_metric_of_the_catalogue_is_on_the_page_and_vllms_too(live: Live) -> None:
    text = httpx.get(f"{live.url}/metrics", timeout=30).text
    kinds = {family.name: family.type for family in text_string_to_metric_families(text)}
    for one in server_families():
        name = one.name.removesuffix("_total") if one.kind == "counter" else one.name
        assert kinds.get(name) == one.kind, one.name
    assert {name for name in ENGINE if name.removesuffix("_total") not in kinds} == set()


def test_targets_are_up_and_every_rule_is_evaluated(watch: Daemon) -> None:
    assert {one["health"] for one in watch.targets()} == {"up"}
    groups = watch.get("/api/v1/rules")["data"]["groups"]
    assert len({group["file"] for group in groups}) == len(RULES)
    rules = [rule for group in groups for rule in group["rules"]]
    wait(
        lambda: all(
            rule["health"] == "ok"
            for group in watch.get("/api/v1/rules")["data"]["groups"]
            for rule in group["rules"]
        ),
        "every rule was evaluated",
    )
    assert [rule["lastError"] for rule in rules if rule.get("lastError")] == []


@pytest.mark.parametrize("path", GRAFANA, ids=lambda path: path.stem)
def test_every_picture_has_data_after_traffic(watch: Daemon, path: Path) -> None:
    assert empty_pictures(watch, path, "watched") == []


def test_no_alert_fires_on_a_server_that_is_well(watch: Daemon) -> None:
    assert watch.ask('ALERTS{alertstate="firing"}') == []
