"""Rules and configurations are judged by the tools that will read them, and name only what exists."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest

from deploy.observability.catalogue import ENGINE, PROMETHEUS, TRAINING, sample_names, server_families
from serve.outcomes import Outcome
from serve.rollout.assignment import Arm
from serve.rollout.decision.metrics import RolloutMetrics
from serve.router.telemetry.metrics import TPOT_SECONDS, TTFT_SECONDS, RouterMetrics
from tests.deploy.watching import FOLDER, RULE_TESTS, RULES, alerts, rules, run, selectors
from tests.fakes.training_file import training_text

REPOSITORY = FOLDER.parents[1]
RUNBOOK = "docs/how-to/operate.md"
ASKING = ("CanaryWorseThanStable",)


def test_promtool_takes_every_file_of_rules() -> None:
    assert len(RULES) == 6
    done = run("promtool", "check", "rules", *RULES)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(alerts()) >= 25


@pytest.mark.slow
@pytest.mark.parametrize("path", RULE_TESTS, ids=lambda path: path.stem)
def test_the_rules_fire_when_they_should_and_only_then(path: Path) -> None:
    done = run("promtool", "test", "rules", path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_rules_and_dashboards_blame_the_outcomes_that_the_server_blames() -> None:
    failed = "|".join(one.value for one in Outcome if one.fails_user)
    neither = "|".join(one.value for one in Outcome if one is not Outcome.OK and not one.fails_user)
    asked = re.compile(r'outcome(=~|!~)\\?"([^"\\]*)\\?"')
    files = [*RULES, *(FOLDER / "grafana").glob("*.json")]
    found = [pair for path in files for pair in asked.findall(path.read_text())]
    assert len(found) > 10
    assert {(how, frozenset(text.split("|"))) for how, text in found} == {
        ("=~", frozenset(failed.split("|"))),
        ("!~", frozenset(neither.split("|"))),
    }


def test_every_alert_fires_in_some_test() -> None:
    fired = {
        case["alertname"]
        for path in RULE_TESTS
        for test in yaml.safe_load(path.read_text())["tests"]
        for case in test.get("alert_rule_test", ())
        if case["exp_alerts"]
    }
    assert {rule["alert"] for rule in alerts()} - fired == set()


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: rule["alert"])
def test_an_alert_says_what_is_wrong_how_bad_it_is_and_where_to_read_on(rule: dict[str, object]) -> None:
    labels, annotations = rule["labels"], rule["annotations"]
    assert isinstance(labels, dict)
    assert isinstance(annotations, dict)
    assert labels["severity"] in {"page", "ticket"}
    assert set(annotations) == {"summary", "description", "runbook"}
    name = str(rule["alert"])
    assert annotations["runbook"] == f"{RUNBOOK}#{name.lower()}"
    assert f"\n### {name}\n" in (REPOSITORY / RUNBOOK).read_text()


def test_only_alerts_about_a_canary_ask_for_an_abort() -> None:
    asking = [rule["alert"] for rule in alerts() if "wardrobe_action" in rule["labels"]]
    assert asking == list(ASKING)


def test_rules_name_only_metrics_that_exist() -> None:
    known = sample_names((*server_families(), *TRAINING)) | ENGINE.keys() | PROMETHEUS
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    assert len(recorded) >= 20
    unknown = {
        selector.name
        for rule in rules()
        for selector in selectors(rule["expr"])
        if selector.name not in known | recorded
    }
    assert unknown == set()


def test_thresholds_of_service_levels_are_edges_of_buckets() -> None:
    text = "".join(path.read_text() for path in RULES)
    asked = {
        (metric, float(edge))
        for metric, edge in re.findall(r'wardrobe_inference_(\w+)_seconds_bucket\{[^}]*le="([\d.]+)"', text)
    }
    assert asked == {("ttft", 2.5), ("time_per_output_token", 0.25)}
    assert 2.5 in TTFT_SECONDS
    assert 0.25 in TPOT_SECONDS


def test_promtool_finds_no_fault_with_the_names_of_the_metrics() -> None:
    registry = CollectorRegistry()
    metrics = RouterMetrics("r1")
    metrics.bind("support", "1", Arm.STABLE).ttft.observe(0.1)
    for collector in (metrics, RolloutMetrics()):
        registry.register(collector)
    for text in (generate_latest(registry).decode(), training_text()):
        assert text.count("# TYPE") >= len(TRAINING)
        done = run("promtool", "check", "metrics", given=text)
        assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.fixture
def mounted(tmp_path: Path) -> Path:
    """The folder as compose mounts it: with the keys, which are not committed."""
    folder = tmp_path / "observability"
    shutil.copytree(FOLDER, folder, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    (folder / "secrets").mkdir()
    for name in ("wardrobe-key", "wardrobe-admin-key"):
        (folder / "secrets" / name).write_text("wardrobe_abc_def")
    return folder


def test_promtool_takes_the_configuration_with_its_rules_and_keys(mounted: Path) -> None:
    done = run("promtool", "check", "config", "prometheus.yml", cwd=mounted)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("rules found") == len(RULES)


def test_amtool_takes_the_configuration(mounted: Path) -> None:
    done = run("amtool", "check-config", "alertmanager.yml", cwd=mounted)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("labels", "receivers"),
    [
        (("wardrobe_action=abort", "adapter=support", "severity=page"), "wardrobe,people"),
        (("severity=page", "adapter=support"), "wardrobe,people"),
        (("severity=page",), "people"),
        (("severity=ticket", "adapter=support"), "people"),
    ],
    ids=["asks", "pages about an adapter", "pages about a machine", "ticket"],
)
def test_the_webhook_gets_what_concerns_a_rollout_and_people_get_everything(
    mounted: Path, labels: tuple[str, ...], receivers: str
) -> None:
    done = run(
        "amtool", "config", "routes", "test", "--config.file", "alertmanager.yml", *labels, cwd=mounted
    )
    assert done.stdout.strip() == receivers
